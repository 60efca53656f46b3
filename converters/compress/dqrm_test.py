"""What INT4 training sees is what the files hold, bit for bit; rows are quantized before they are pooled."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from converters.compress.batches import ArrayBatches  # noqa: E402
from converters.compress.dqrm import DqrmPlan, finish, prepare  # noqa: E402
from converters.compress.fake_quantize import on_grid, row_scales, table_scale  # noqa: E402
from converters.compress.train import TrainPlan, predict, train  # noqa: E402
from converters.contracts import CaptureRequest, LowerRequest  # noqa: E402
from edge_deploy.core.errors import BadInput, Unsupported  # noqa: E402
from edge_deploy.core.quant_spec import spec_for_recipe  # noqa: E402
from edge_deploy.core.serde import write_json  # noqa: E402
from edge_deploy.core.tensor import TensorInfo  # noqa: E402
from edge_deploy.zoo.dlrm import CONFIG_VARIABLE, DlrmConfig, build  # noqa: E402

ROWS = (100, 37, 1, 500)
CONFIG = DlrmConfig(dense_features=5, table_rows=ROWS, dim=8, bottom=(16,), top=(32,), bags=True)


def batches(count=600, *, first=0, batch=128, shuffle=True):
    generator = np.random.default_rng(0)
    dense = generator.normal(size=(2000, 5)).astype(np.float32)
    ids = (generator.random((2000, 4)) ** 3 * np.array(ROWS)).astype(np.int64)
    weights = [generator.normal(size=rows) for rows in ROWS]
    logits = sum(weight[ids[:, column]] for column, weight in enumerate(weights)) + dense[:, 0]
    labels = (generator.random(2000) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    own = slice(first, first + count)
    return ArrayBatches(dense=dense[own], ids=ids[own], labels=labels[own], batch=batch, shuffle=shuffle)


def trained(plan):
    model = build(CONFIG)
    prepare(model, plan)
    test = batches(500, first=1500, shuffle=False)
    train(model, batches(1500), test, TrainPlan(epochs=2, rate=0.05))
    seen = predict(model, test)[1]
    scales = finish(model)
    return model, scales, seen, predict(model, test)[1]


@pytest.fixture(scope="module", params=["row", "table"])
def exported(request, tmp_path_factory):
    """A trained model, and its captured form as a conversion makes it from the checkpoint."""
    from converters.sources.torch_module import capture

    model, scales, seen, left = trained(DqrmPlan(table_scale=request.param, refresh_steps=3))
    folder = tmp_path_factory.mktemp(request.param)
    torch.save({**model.state_dict(), **scales}, folder / "weights.pt")
    write_json(CONFIG, folder / "config.json")
    (folder / "captured").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CONFIG_VARIABLE, str(folder / "config.json"))
        captured = capture(
            CaptureRequest(
                source="edge_deploy.zoo.dlrm:configured",
                weights=folder / "weights.pt",
                inputs=(
                    TensorInfo(name="dense", shape=(1, 5), dtype="float32"),
                    TensorInfo(name="sparse", shape=(1, 4), dtype="int64"),
                ),
            ),
            folder / "captured",
        )
    return model, seen, left, captured, folder


def test_finished_weights_give_the_scores_that_evaluation_saw(exported):
    _, seen, left, _, _ = exported
    assert np.array_equal(seen, left)


def test_tflite_holds_the_trained_tables_and_layers_bit_for_bit(exported):
    from converters.recommender.model import load
    from converters.targets import tflite
    from converters.tflite.recommender_check import check_tables

    model, _, _, captured, folder = exported
    out = folder / "tflite"
    out.mkdir()
    lowered = tflite.lower(
        LowerRequest(captured=captured, spec=spec_for_recipe("int4", mlp_bits=4, fallback_bits=8), folder=out)
    )
    structure, arrays = load(captured.recommender)
    for table, own in zip(structure.tables, model.tables, strict=True):
        assert np.array_equal(arrays[table.weight], own.weight.detach().numpy())
    errors = check_tables(out / "model.tflite", structure, arrays)
    assert [error.steps for error in errors] == [0.0] * len(ROWS)
    assert all(error.storage.startswith("int4") for error in errors)
    for layer in (*structure.bottom, *structure.top):
        for stored, own in zip(_dense_in(out / "model.tflite", layer.name), arrays[layer.weight], strict=True):
            # The first top layer's columns are permuted, and columns of zeros stand between them.
            assert np.array_equal(np.sort(stored[stored != 0]), np.sort(own[own != 0]))
    assert any("int4" in outcome.got for outcome in lowered.outcomes)


def test_executorch_holds_the_trained_tables_bit_for_bit(exported):
    pytest.importorskip("executorch")
    from converters.executorch.recommender_readback import read_back
    from converters.executorch.recommender_tables import dequantized, stack_tables
    from converters.recommender.trained import load_trained
    from converters.targets import executorch

    model, _, _, captured, folder = exported
    out = folder / "executorch"
    out.mkdir()
    executorch.lower(LowerRequest(captured=captured, spec=spec_for_recipe("int4", mlp_bits=4), folder=out))
    scales = load_trained(captured.recommender)
    kind = "row" if scales["tables.0"].by_row else "table"
    tables = [table.weight.detach().numpy() for table in model.tables]
    learned = [scales[f"tables.{index}"].scales for index in range(len(ROWS))]
    written = read_back(out / "model.pte", [stack_tables(tables, bits=4, scale=kind, trained=learned)])[0]
    for index, table in enumerate(tables):
        assert np.array_equal(dequantized(written, index, 0, len(table))[0], table)


def test_a_safetensors_file_alone_keeps_its_scales_too(exported, tmp_path):
    from safetensors.torch import save_file

    from converters.recommender.trained import load_trained
    from converters.sources.dlrm_arrays import capture

    _, _, _, other, folder = exported
    state = torch.load(folder / "weights.pt", weights_only=True)
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "captured").mkdir()
    captured = capture(CaptureRequest(source=str(tmp_path / "model.safetensors")), tmp_path / "captured")
    ours, theirs = load_trained(captured.recommender), load_trained(other.recommender)
    assert set(ours) == set(theirs) and len(ours) == 8
    for name, found in ours.items():
        assert found.bits == 4 and np.array_equal(found.scales, theirs[name].scales)
    state["tables.1.weight"][3] *= 1.01
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(BadInput, match=r"tables\.1: its weights are no multiples"):
        capture(CaptureRequest(source=str(tmp_path / "model.safetensors")), tmp_path / "captured")


def _dense_in(path, name):
    """Dequantized weights [out, in] of a fully connected layer."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    detail = next(d for d in interpreter.get_tensor_details() if d["name"] == f"{name}.weight")
    values = interpreter.get_tensor(detail["index"])
    if values.dtype == np.uint8 or values.shape != tuple(detail["shape"]):
        pytest.skip("this interpreter does not unpack 4-bit constants")
    scales = detail["quantization_parameters"]["scales"].reshape(-1, 1)
    return values.astype(np.float32) * scales


def test_rows_are_quantized_before_they_are_pooled():
    table = torch.nn.EmbeddingBag(10, 4, mode="mean", padding_idx=0)
    original = table.weight.detach().clone()
    model = torch.nn.Sequential(table)
    prepare(model, DqrmPlan(table_scale="row"))
    ids = torch.tensor([[1, 2, 0], [3, 0, 0], [0, 0, 0]])
    rows = on_grid(original, row_scales(original, 4), 4)
    wanted = torch.stack([(rows[1] + rows[2]) / 2, rows[3], torch.zeros(4)])
    assert torch.allclose(model(ids), wanted, atol=1e-7)
    flat, offsets = torch.tensor([1, 2, 3]), torch.tensor([0, 2, 3])
    assert torch.allclose(model[0](flat, offsets), wanted, atol=1e-7)


def test_quantizing_looked_up_rows_equals_quantizing_the_whole_table():
    torch.manual_seed(0)
    table = torch.nn.EmbeddingBag(50, 8, mode="sum", sparse=True)
    weight = table.weight.detach().clone().requires_grad_()
    model = torch.nn.Sequential(table)
    prepare(model, DqrmPlan())
    ids, factor = torch.randint(0, 50, (16, 3)), torch.randn(16, 8)
    (model(ids) * factor).sum().backward()
    scale = table_scale(weight, 4)
    whole = weight + (on_grid(weight, scale, 4) - weight).detach()
    (torch.nn.functional.embedding(ids, whole).sum(dim=1) * factor).sum().backward()
    gradient = model[0].weight.grad
    assert gradient.is_sparse and len(gradient.coalesce().indices()[0]) < 50
    assert torch.allclose(gradient.to_dense(), weight.grad, atol=1e-6)


def test_a_table_scale_waits_for_its_refresh_and_for_evaluation():
    model = torch.nn.Sequential(torch.nn.Embedding(5, 4))
    prepare(model, DqrmPlan(refresh_steps=3))
    layer, ids = model[0], torch.tensor([1])
    first = layer.weight_scale.clone()
    model(ids)
    layer.weight.data.mul_(2)
    model(ids), model(ids)
    assert torch.equal(layer.weight_scale, first)
    model(ids)
    assert torch.equal(layer.weight_scale, 2 * first)
    layer.weight.data.mul_(2)
    model.eval()
    assert torch.equal(layer.weight_scale, 4 * first)


def test_a_searched_scale_stores_what_is_looked_up_better_than_the_largest_value_does():
    torch.manual_seed(0)
    table = torch.nn.Embedding(200, 8)
    table.weight.data.normal_(0, 0.1)
    table.weight.data[199] = 3.0
    rows = table.weight.detach().clone()
    model = torch.nn.Sequential(table)
    prepare(model, DqrmPlan(table_range="mse"))
    ids = torch.randint(0, 190, (500,))
    model(ids)
    searched = model.eval()[0].weight_scale
    assert torch.equal(model[0].weight_scale, searched), "evaluation keeps it"
    wide = table_scale(rows, 4)
    errors = [float((on_grid(rows[ids], scale, 4) - rows[ids]).square().sum()) for scale in (searched, wide)]
    assert errors[0] < 0.05 * errors[1]
    assert torch.equal(model(ids), on_grid(rows[ids], searched, 4))


def test_training_may_begin_in_float_while_evaluation_sees_the_grid():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Embedding(5, 4), torch.nn.Linear(4, 1))
    table, layer = (module.weight.detach().clone() for module in model)
    bias = model[1].bias.detach().clone()
    prepare(model, DqrmPlan(start_step=2))
    ids = torch.tensor([1, 3])
    plain = table[ids] @ layer.T + bias
    assert torch.allclose(model(ids), plain) and torch.allclose(model(ids), plain)
    grid = model(ids)
    assert not torch.allclose(grid, plain)
    fresh = torch.nn.Sequential(torch.nn.Embedding(5, 4, _weight=table), torch.nn.Linear(4, 1))
    fresh[1].load_state_dict({"weight": layer, "bias": bias})
    prepare(fresh, DqrmPlan(start_step=2))
    assert torch.equal(fresh.eval()(ids), grid)


def test_rows_of_any_size_lie_on_their_grid_exactly():
    rows = torch.randn(1000, 8) * torch.logspace(-9, 3, 1000)[:, None]
    for bits in (4, 8):
        scales = row_scales(rows, bits)
        assert torch.equal(scales.half().float(), scales)
        once = on_grid(rows, scales, bits)
        assert torch.equal(on_grid(once, scales, bits), once)
        assert bool(((once - rows).abs() <= scales * 0.51).all())


def test_what_has_no_grid_is_refused_by_name():
    model = torch.nn.Sequential(torch.nn.EmbeddingBag(5, 4, mode="max"))
    with pytest.raises(Unsupported, match=r"layer 0 \(EmbeddingBag"):
        prepare(model, DqrmPlan())
    with pytest.raises(BadInput, match="table_bits = 3"):
        DqrmPlan(table_bits=3)


def test_scales_that_do_not_belong_to_the_weights_are_refused(exported, tmp_path):
    from converters.recommender.model import load
    from converters.recommender.trained import check_on_grid, load_trained, save_trained

    _, _, _, captured, _ = exported
    model, arrays = load(captured.recommender)
    scales = load_trained(captured.recommender)
    moved = {**arrays, model.tables[0].weight: np.asarray(arrays[model.tables[0].weight]) * np.float32(1.01)}
    with pytest.raises(BadInput, match=r"tables\.0: its weights are no multiples"):
        check_on_grid(model, moved, scales)
    with pytest.raises(BadInput, match="no table or fully connected layer other"):
        save_trained({"other.weight_scale": np.ones(1, np.float32)}, model, tmp_path)
