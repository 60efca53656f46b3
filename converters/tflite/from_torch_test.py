import numpy as np
import pytest

from converters.contracts import CaptureRequest
from converters.sources import torch_module
from converters.tflite.flatbuffer import op_name, read_model
from converters.tflite.from_torch import adapted, float_tflite
from edge_deploy.core.errors import Unsupported
from edge_deploy.core.tensor import TensorInfo, encode_input, to_layout

torch = pytest.importorskip("torch")
pytest.importorskip("litert_torch")
litert = pytest.importorskip("ai_edge_litert.interpreter")

NETS = """
import torch
from torch import nn
from torch.nn import functional

class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.wide = nn.Conv2d(6, 24, 1)
        self.depth = nn.Conv2d(24, 24, 3, stride=2, padding=1, groups=24)
        self.narrow = nn.Conv2d(24, 6, 1)
        self.hidden = nn.Linear(6 * 4 * 4, 8)
        self.head = nn.Linear(8, 5)
    def forward(self, x):
        x = functional.relu(self.norm(self.first(x)))
        x = functional.max_pool2d(x, 2) + self.narrow(functional.relu6(self.depth(functional.relu6(self.wide(x)))))
        x = functional.max_pool2d(x, 2)
        return self.head(functional.relu(self.hidden(x.view(x.size(0), -1))))

class Upscaling(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(4, 2, 2, stride=2)
    def forward(self, image):
        x = functional.hardswish(self.down(image))
        return {"mask": torch.sigmoid(self.up(x)), "mean": x.mean((2, 3))}

class Clicks(nn.Module):
    def __init__(self):
        super().__init__()
        self.sums, self.means = nn.EmbeddingBag(20, 4, mode="sum"), nn.EmbeddingBag(30, 4, mode="mean", padding_idx=0)
        self.bottom = nn.Linear(3, 4)
        self.top = nn.Sequential(nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 1), nn.Sigmoid())
    def forward(self, dense, some, more):
        parts = [torch.tanh(self.bottom(dense)), self.sums(some), self.means(more)]
        return self.top(torch.cat(parts, 1))

class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(4, 8)
        self.kind, self.size, self.score = nn.Linear(8, 3), nn.Linear(8, 2), nn.Linear(8, 1)
    def forward(self, x):
        x = functional.relu(self.body(x))
        return {"kind": self.kind(x), "score": torch.sigmoid(self.score(x)), "size": self.size(x)}

class Decomposing(nn.Module):
    def __init__(self):
        super().__init__()
        self.line = nn.Linear(4, 4)
    def forward(self, x):
        x = self.line(x)
        return torch.linalg.svd(x.unsqueeze(2) @ x.unsqueeze(1))[1]

def _seeded(kind):
    torch.manual_seed(0)
    net = kind()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.5, 1.5)
    return net

def residual(): return _seeded(Residual)
def upscaling(): return _seeded(Upscaling)
def clicks(): return _seeded(Clicks)
def heads(): return _seeded(Heads)
"""
COUNT = 6


def _input(name, *shape, dtype="float32"):
    return TensorInfo(name=name, shape=(1, *shape), dtype=dtype)


INPUTS = {
    "residual": (_input("photo", 3, 16, 16),),
    "upscaling": (_input("image", 3, 8, 8),),
    "clicks": (_input("dense", 3), _input("some", 2, dtype="int64"), _input("more", 5, dtype="int64")),
    "heads": (_input("x", 4),),
    "Decomposing": (_input("x", 4),),
}


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Captured program, its feeds and float answers, and its TFLite file; each made once."""
    folder = tmp_path_factory.mktemp("from-torch")
    (folder / "user_code_for_tflite.py").write_text(NETS)
    made = {}

    def convert(name, batches=(1,)):
        if name not in made:
            own = folder / name
            own.mkdir()
            source = f"user_code_for_tflite:{name}"
            request = CaptureRequest(source=source, inputs=INPUTS[name], batches=batches, search_path=(str(folder),))
            captured = torch_module.capture(request, own)
            generator = np.random.default_rng(0)
            feeds = {
                info.name: generator.integers(0, 20, (COUNT, *info.shape[1:]))
                if info.dtype == "int64"
                else generator.standard_normal((COUNT, *info.shape[1:]), dtype=np.float32)
                for info in captured.inputs
            }
            np.savez(own / "feeds.npz", **feeds)
            torch_module.run_float(captured, own / "feeds.npz", own / "answers.npz")
            with np.load(own / "answers.npz") as answers:
                made[name] = captured, feeds, dict(answers), float_tflite(captured, own)
        return made[name]

    return convert


def _run(path, captured, feeds, signature, batch):
    """Answers of one signature for the first `batch` samples, in the source's layouts."""
    runner = litert.Interpreter(str(path)).get_signature_runner(signature)
    given = {
        info.name: encode_input(feeds[info.name][:batch], source=info, target=adapted(info)) for info in captured.inputs
    }
    return {
        info.name: to_layout(runner(**given)[info.name], adapted(info).layout, info.layout) for info in captured.outputs
    }


def _operators(path, graph=0):
    model = read_model(path)
    tensors = model.subgraphs[graph].tensors
    return [(op_name(model, op), tensors[op.outputs[0]].name.decode()) for op in model.subgraphs[graph].operators]


def test_a_residual_net_computes_the_same_at_every_batch_size(converted):
    captured, feeds, answers, path = converted("residual", (1, 4))
    for batch in (1, 4):
        got = _run(path, captured, feeds, f"batch_{batch}", batch)
        np.testing.assert_allclose(got["output"], answers["output"][:batch], atol=1e-5)


def test_no_transposition_is_left_of_images_also_where_they_are_flattened(converted):
    _, _, _, path = converted("residual", (1, 4))
    for graph in (0, 1):
        kinds = [kind for kind, _ in _operators(path, graph)]
        assert "TRANSPOSE" not in kinds
        assert kinds.count("CONV_2D") == 3
        assert kinds.count("DEPTHWISE_CONV_2D") == 1


def test_layers_bear_the_names_of_their_modules_alike_in_every_signature(converted):
    _, _, _, path = converted("residual", (1, 4))
    weighty = [(k, n) for k, n in _operators(path) if k in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")]
    assert weighty == [
        ("CONV_2D", "first"),
        ("CONV_2D", "wide"),
        ("DEPTHWISE_CONV_2D", "depth"),
        ("CONV_2D", "narrow"),
        ("FULLY_CONNECTED", "hidden"),
        ("FULLY_CONNECTED", "head"),
    ]
    assert _operators(path, 0) == _operators(path, 1)
    names = [name for _, name in _operators(path)]
    assert len(set(names)) == len(names)


def test_heads_of_one_width_each_bear_their_own_name(converted):
    _, _, _, path = converted("heads")
    model = read_model(path)
    tensors = model.subgraphs[0].tensors
    dense = [op for op in model.subgraphs[0].operators if op_name(model, op) == "FULLY_CONNECTED"]
    rows = {tensors[op.outputs[0]].name.decode(): int(tensors[op.inputs[1]].shape[0]) for op in dense}
    assert rows == {"body": 8, "kind": 3, "score": 1, "size": 2}


def test_signatures_share_the_weights_and_bear_the_source_names(converted):
    captured, _, _, path = converted("residual", (1, 4))
    parameters = sum(value.numel() for value in torch.export.load(captured.program).state_dict.values()) * 4
    assert path.stat().st_size < 1.3 * parameters + 12000
    signatures = litert.Interpreter(str(path)).get_signature_list()
    assert signatures == {name: {"inputs": ["photo"], "outputs": ["output"]} for name in ("batch_1", "batch_4")}


def test_images_that_leave_the_model_are_channels_last_too(converted):
    captured, feeds, answers, path = converted("upscaling")
    assert [adapted(info).shape for info in captured.outputs] == [(1, 8, 8, 2), (1, 4)]
    got = _run(path, captured, feeds, "serving_default", 1)
    for name in ("mask", "mean"):
        np.testing.assert_allclose(got[name], answers[name][:1], atol=1e-5)
    assert "TRANSPOSE" not in [kind for kind, _ in _operators(path)]


def test_embedding_bags_become_look_ups_of_32_bit_ids(converted):
    captured, feeds, answers, path = converted("clicks", (1, 4))
    assert captured.kind == "recommender"
    for batch in (1, 4):
        got = _run(path, captured, feeds, f"batch_{batch}", batch)
        np.testing.assert_allclose(got["output"], answers["output"][:batch], atol=1e-6)
    details = litert.Interpreter(str(path)).get_signature_runner("batch_1").get_input_details()
    assert {name: info["dtype"] for name, info in details.items()} == {
        "dense": np.float32,
        "some": np.int32,
        "more": np.int32,
    }


def test_the_file_is_made_once(converted):
    captured, _, _, path = converted("upscaling")
    before = path.stat().st_mtime_ns
    assert float_tflite(captured, captured.folder) == path
    assert path.stat().st_mtime_ns == before


def test_operators_that_tflite_lacks_are_refused_by_layer(converted):
    with pytest.raises(Unsupported, match=r"layer linalg_svd \(aten\._linalg_svd\.default\)"):
        converted("Decomposing")
