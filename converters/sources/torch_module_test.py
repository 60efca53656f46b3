import numpy as np
import pytest

from converters.contracts import CaptureRequest
from converters.sources import pt2, torch_module
from edge_deploy.core.errors import BadInput, Unsupported
from edge_deploy.core.tensor import TensorInfo

torch = pytest.importorskip("torch")

FACTORIES = """
import torch
from torch import nn
from torch.nn import functional

class Image(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, 2)
    def forward(self, x):
        return functional.softmax(self.head(functional.relu(self.conv(x)).mean((2, 3))), dim=1)

class Clicks(nn.Module):
    def __init__(self):
        super().__init__()
        self.tables = nn.ModuleList([nn.EmbeddingBag(20, 4, mode="sum"), nn.EmbeddingBag(30, 4, mode="mean")])
        self.head = nn.Linear(11, 1)
    def forward(self, dense, ids):
        bags = [table(column) for table, column in zip(self.tables, ids)]
        return {"click": torch.sigmoid(self.head(torch.cat([dense, *bags], 1))), "dense": dense * 2}

class Published(nn.Module):
    # As the DLRM published with its paper: a list of offsets, a list of ids, pairs picked by torch.tensor.
    def __init__(self):
        super().__init__()
        self.emb_l = nn.ModuleList([nn.EmbeddingBag(rows, 4, mode="sum", sparse=True) for rows in (20, 30)])
        self.bot_l = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
        self.top_l = nn.Sequential(nn.Linear(7, 1), nn.Sigmoid())
    def forward(self, dense_x, lS_o, lS_i):
        x = self.bot_l(dense_x)
        ly = [table(ids, offsets, per_sample_weights=None) for table, ids, offsets in zip(self.emb_l, lS_i, lS_o)]
        T = torch.cat([x] + ly, dim=1).view((x.shape[0], -1, x.shape[1]))
        Z = torch.bmm(T, torch.transpose(T, 1, 2))
        li, lj = torch.tensor([1, 2, 2]), torch.tensor([0, 0, 1])
        return self.top_l(torch.cat([x] + [Z[:, li, lj]], dim=1))

class OneOnly(nn.Module):
    def forward(self, x):
        return x * 2 if x.shape[0] == 1 else x

class Branches(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x

class Sum(nn.Module):
    def forward(self, x):
        return x.reshape(1, 4) * 2

instance = Image()
number = 3
class Random(nn.Module):
    def forward(self, x):
        return functional.dropout(x, 0.5)

def needs(argument): return Image()
def fails(): raise RuntimeError("no luck")
def wrong(): return 5
"""
IMAGE = (TensorInfo(name="x", shape=(1, 3, 8, 8), dtype="float32"),)
ROW = (TensorInfo(name="x", shape=(1, 4), dtype="float32"),)
CLICKS = (
    TensorInfo(name="dense", shape=(1, 3), dtype="float32"),
    TensorInfo(name="ids_0", shape=(1, 2), dtype="int64"),
    TensorInfo(name="ids_1", shape=(1, 5), dtype="int64"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("factories")
    (path / "user_code_for_sources.py").write_text(FACTORIES)
    return path


def _request(folder, name, inputs=(), **more):
    source = f"user_code_for_sources:{name}"
    return CaptureRequest(source=source, inputs=inputs, search_path=(str(folder),), **more)


def _answers(source, captured, folder, **feeds):
    np.savez(folder / "feeds.npz", **feeds)
    source.run_float(captured, folder / "feeds.npz", folder / "answers.npz")
    with np.load(folder / "answers.npz") as answers:
        return dict(answers)


def _images(count):
    return np.random.default_rng(0).random((count, 3, 8, 8), dtype=np.float32)


def test_weights_are_loaded_and_images_are_recognised(folder, tmp_path):
    import sys

    sys.path.insert(0, str(folder))
    try:
        from user_code_for_sources import Image
    finally:
        sys.path.remove(str(folder))
    trained = Image().eval()
    torch.save({"state_dict": trained.state_dict()}, tmp_path / "w.pt")
    got = torch_module.capture(_request(folder, "Image", IMAGE, weights=tmp_path / "w.pt"), tmp_path)
    assert (got.kind, got.inputs[0].layout, got.inputs[0].shape) == ("cnn", "NCHW", (1, 3, 8, 8))
    assert (got.outputs[0].name, got.outputs[0].meaning) == ("output", "probability")
    x = _images(5)
    expected = trained(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(_answers(torch_module, got, tmp_path, x=x)["output"], expected, atol=1e-6)


def test_lists_of_ids_and_dicts_of_outputs_become_flat(folder, tmp_path):
    got = torch_module.capture(_request(folder, "Clicks", CLICKS, batches=(1, 8)), tmp_path)
    assert [info.name for info in got.inputs] == ["dense", "ids_0", "ids_1"]
    assert [info.shape[0] for info in (*got.inputs, *got.outputs)] == [-1] * 5
    assert [(info.name, info.meaning) for info in got.outputs] == [("click", "probability"), ("dense", None)]
    generator = np.random.default_rng(0)
    feeds = {
        "dense": generator.random((11, 3), dtype=np.float32),
        "ids_0": generator.integers(0, 20, (11, 2)),
        "ids_1": generator.integers(0, 30, (11, 5)),
    }
    answers = _answers(torch_module, got, tmp_path, **feeds)
    np.testing.assert_allclose(answers["dense"], feeds["dense"] * 2)
    tables = {name: value for name, value in torch.export.load(got.program).state_dict.items() if value.shape[-1] == 4}
    assert sorted(tuple(table.shape) for table in tables.values()) == [(20, 4), (30, 4)]


def test_the_published_dlrm_is_a_recommender_with_its_lists_of_offsets_and_ids(folder, tmp_path):
    names = [f"lS_{kind}_{table}" for kind in "oi" for table in range(2)]
    inputs = (
        TensorInfo(name="dense_x", shape=(1, 3), dtype="float32"),
        *(TensorInfo(name=name, shape=(1,), dtype="int64") for name in names),
    )
    captured = torch_module.capture(_request(folder, "Published", inputs), tmp_path)
    assert captured.recommender is not None
    assert [info.id_bounds for info in captured.inputs[3:]] == [(20,), (30,)]
    with pytest.raises(Unsupported, match="take --batch 1"):
        torch_module.capture(_request(folder, "Published", inputs, batches=(1, 8)), tmp_path)
    # Torch itself refuses to decompose or to export again what torch.tensor(...) leaves in a program.
    program = torch.export.load(captured.program)
    program.run_decompositions()
    assert "emb_l.1.weight" in program.state_dict
    # Each sample is one bag that begins at 0, however many samples the float run takes at a time.
    generator = np.random.default_rng(0)
    feeds = {"dense_x": generator.normal(size=(9, 3)).astype(np.float32)}
    feeds |= {name: np.zeros((9, 1), np.int64)[:, 0] for name in names[:2]}
    feeds |= {name: generator.integers(0, 20, 9) for name in names[2:]}
    answers = _answers(torch_module, captured, tmp_path, **feeds)["output"]
    module = program.module()
    alone = [module(*(torch.from_numpy(feeds[info.name][row : row + 1]) for info in inputs)) for row in range(9)]
    np.testing.assert_allclose(answers, torch.cat(alone).detach().numpy(), atol=1e-6)


def test_the_graph_holds_no_embedding_bag_afterwards(folder, tmp_path):
    got = torch_module.capture(_request(folder, "Clicks", CLICKS), tmp_path)
    names = [str(node.target) for node in torch.export.load(got.program).graph.nodes]
    assert not [name for name in names if "embedding_bag" in name]
    assert [name for name in names if "embedding" in name]
    assert got.kind == "recommender"
    assert [info.id_bounds[:1] for info in got.inputs] == [(), (20,), (30,)]


def test_a_module_instance_is_as_good_as_a_factory(folder, tmp_path):
    assert torch_module.capture(_request(folder, "instance", IMAGE), tmp_path).kind == "cnn"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Imagee", "did you mean Image?"),
        ("number", "is a int: must be a function, a class or an nn.Module"),
        ("needs", r"needs arguments \(argument\)"),
        ("fails", r"RuntimeError: no luck \(user_code_for_sources.py, line \d+\)"),
        ("wrong", "made a int: must be, or return, a torch.nn.Module"),
    ],
)
def test_factories_that_make_no_module_are_bad_input(folder, tmp_path, name, message):
    with pytest.raises(BadInput, match=message):
        torch_module.capture(_request(folder, name, IMAGE), tmp_path)


def test_a_module_that_cannot_be_imported_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(BadInput, match=r"importing no_such_module_at_all failed: ModuleNotFoundError.*current folder"):
        torch_module.capture(CaptureRequest(source="no_such_module_at_all:f", inputs=ROW), tmp_path)


def test_inputs_that_the_module_cannot_take_are_bad_input(folder, tmp_path):
    with pytest.raises(BadInput, match=r"cannot be called with x \(1, 4\)"):
        torch_module.capture(_request(folder, "Image", ROW), tmp_path)


def test_branches_on_values_are_unsupported(folder, tmp_path):
    with pytest.raises(Unsupported, match="branches on values"):
        torch_module.capture(_request(folder, "Branches", ROW), tmp_path)


def test_a_module_that_draws_random_numbers_is_unsupported(folder, tmp_path):
    with pytest.raises(Unsupported, match="or on random numbers"):
        torch_module.capture(_request(folder, "Random", ROW), tmp_path)


@pytest.mark.parametrize("name", ["OneOnly", "Sum"])
def test_a_module_for_one_batch_size_serves_one_but_not_several(folder, tmp_path, name):
    assert torch_module.capture(_request(folder, name, ROW), tmp_path).batches == (1,)
    with pytest.raises((Unsupported, BadInput), match="ask for a single --batch"):
        torch_module.capture(_request(folder, name, ROW, batches=(1, 4)), tmp_path)


@pytest.fixture(scope="module")
def archives(folder):
    """Programs as users export them: fixed, dynamic and bounded batch, nested arguments, and NaN weights."""

    class Bag(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.EmbeddingBag(9, 4, mode="mean")

        def forward(self, items, *, scale):
            return (self.table(items[0]) * scale, items[1])

    module = Bag().eval()
    items = [torch.zeros(3, 2, dtype=torch.int64), torch.ones(3, 1)]
    batch, few = torch.export.Dim("batch"), torch.export.Dim("few", min=2, max=16)
    for name, dim in (("fixed", None), ("dynamic", batch), ("bounded", few)):
        shapes = None if dim is None else {"items": [{0: dim}, {0: dim}], "scale": {0: dim}}
        program = torch.export.export(module, (items,), {"scale": torch.ones(3, 1)}, dynamic_shapes=shapes)
        torch.export.save(program, folder / f"{name}.pt2")
    linear = torch.nn.Linear(3, 2)
    with torch.no_grad():
        linear.bias[1] = float("nan")
    torch.export.save(torch.export.export(linear, (torch.ones(1, 3),)), folder / "nan.pt2")
    return folder, module


@pytest.mark.parametrize(
    ("name", "batches"), [("fixed", (1,)), ("dynamic", (1,)), ("dynamic", (1, 8)), ("bounded", (8,))]
)
def test_archives_with_nested_arguments_are_captured_flat(archives, tmp_path, name, batches):
    folder, module = archives
    request = CaptureRequest(source=str(folder / f"{name}.pt2"), batches=batches)
    assert pt2.accepts(request)
    got = pt2.capture(request, tmp_path)
    assert got.batches == ((3,) if name == "fixed" else batches)
    assert [info.name for info in got.outputs] == ["output_0", "output_1"]
    assert not [node for node in torch.export.load(got.program).graph.nodes if "embedding_bag" in str(node.target)]
    generator = np.random.default_rng(0)
    values = (
        generator.integers(0, 9, (7, 2)),
        generator.random((7, 1), dtype=np.float32),
        generator.random((7, 1), dtype=np.float32),
    )
    feeds = {info.name: value for info, value in zip(got.inputs, values, strict=True)}
    answers = _answers(pt2, got, tmp_path, **feeds)
    ids, weight, scale = (torch.from_numpy(value) for value in values)
    expected = module([ids, weight], scale=scale)
    np.testing.assert_allclose(answers["output_0"], expected[0].detach().numpy(), atol=1e-6)
    np.testing.assert_allclose(answers["output_1"], expected[1].numpy(), atol=1e-6)


def test_a_batch_outside_the_programs_bounds_is_refused(archives, tmp_path):
    folder, _ = archives
    with pytest.raises(BadInput, match=r"--batch 64: the program was exported for .* to 16"):
        pt2.capture(CaptureRequest(source=str(folder / "bounded.pt2"), batches=(64,)), tmp_path)
    with pytest.raises(BadInput, match="batch is fixed at 3; --batch 5 cannot be had"):
        pt2.capture(CaptureRequest(source=str(folder / "fixed.pt2"), batches=(5,)), tmp_path)


def test_archives_with_weights_that_are_not_finite_are_refused(archives, tmp_path):
    folder, _ = archives
    with pytest.raises(BadInput, match="weight bias: 1 of 2 values are NaN"):
        pt2.capture(CaptureRequest(source=str(folder / "nan.pt2")), tmp_path)


def test_damaged_archives_are_bad_input(archives, tmp_path):
    folder, _ = archives
    content = bytearray((folder / "nan.pt2").read_bytes())
    middle = len(content) // 3
    content[middle : middle + 400] = bytes(400)
    (tmp_path / "damaged.pt2").write_bytes(content)
    with pytest.raises(BadInput, match=r"damaged\.pt2"):
        pt2.capture(CaptureRequest(source=str(tmp_path / "damaged.pt2")), tmp_path)


@pytest.mark.needs_data
def test_an_old_checkpoint_of_data_parallel_training_is_loaded(data, tmp_path):
    weights = next((data / "models/cifar10_resnet_pytorch").glob("resnet20*.th"))
    inputs = (TensorInfo(name="image", shape=(1, 3, 32, 32), dtype="float32"),)
    request = CaptureRequest(source="edge_deploy.zoo.resnet:resnet20", weights=weights, inputs=inputs)
    got = torch_module.capture(request, tmp_path)
    assert any("DataParallel" in note for note in got.notes)
    assert got.outputs[0].shape == (1, 10)
