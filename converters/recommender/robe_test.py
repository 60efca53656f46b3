"""Tables over a shared array go from a torch module through both formats, hash included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from converters.contracts import Captured, LowerRequest  # noqa: E402
from converters.recommender.model import Recommender, load, save  # noqa: E402
from converters.recommender.recognise import recognise  # noqa: E402
from converters.recommender.reference import run_reference  # noqa: E402
from edge_deploy.core import registry  # noqa: E402
from edge_deploy.core.quant_spec import spec_for_recipe  # noqa: E402
from edge_deploy.core.robe import make_hash  # noqa: E402
from edge_deploy.core.tensor import TensorInfo  # noqa: E402
from edge_deploy.zoo import dlrm  # noqa: E402
from edge_deploy.zoo.robe import shared_tables  # noqa: E402

ROWS = (50, 7, 20000)
BATCH = 6
BACKENDS = {
    "tflite": ("litert", "model.tflite", "ai_edge_litert"),
    "executorch": ("executorch", "model.pte", "executorch"),
}


def trained(*, bags: bool = False) -> Any:
    """A DLRM of three tables over 1001 values, rows of 10 in blocks of 4: the last block is cut short."""
    module = dlrm.build(
        dlrm.DlrmConfig(dense_features=3, table_rows=ROWS, dim=10, bottom=(8,), top=(8,), bags=bags, seed=1)
    )
    made = make_hash(size=1001, dim=10, block=4)
    module.tables = shared_tables(ROWS, made, mode="sum" if bags else None, seed=2)
    torch.nn.init.normal_(module.tables[0].array)
    return module.eval()


def inputs() -> tuple[TensorInfo, ...]:
    return (
        TensorInfo(name="dense", shape=(BATCH, 3), dtype="float32"),
        TensorInfo(name="sparse", shape=(BATCH, 3), dtype="int64"),
    )


def feeds() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    ids = np.stack([rng.integers(0, count, BATCH) for count in ROWS], axis=1)
    return {"dense": rng.standard_normal((BATCH, 3)).astype(np.float32), "sparse": ids}


def recognised(module: Any) -> tuple[Recommender, dict[str, np.ndarray]]:
    values = feeds()
    program = torch.export.export(module, tuple(torch.from_numpy(values[info.name]) for info in inputs()))
    found = recognise(program, inputs())
    assert found is not None
    return found


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> Captured:
    folder = tmp_path_factory.mktemp("robe")
    model, arrays = recognised(trained())
    save(model, arrays, folder / "recommender")
    return Captured(
        name="robe",
        framework="torch",
        kind="recommender",
        folder=folder,
        inputs=inputs(),
        outputs=(model.output,),
        batches=(BATCH,),
        recommender=folder / "recommender",
    )


@pytest.mark.parametrize("bags", [False, True])
def test_an_exported_module_is_recognised_with_its_hash_and_one_array(bags: bool) -> None:
    module = trained(bags=bags)
    model, arrays = recognised(module)
    assert [table.robe for table in model.tables] == [table.table for table in module.tables]
    assert {table.weight for table in model.tables} == {"array.0.shared"}
    with torch.no_grad():
        wanted = module(*(torch.from_numpy(value) for value in feeds().values())).numpy()
    np.testing.assert_allclose(run_reference(model, arrays, feeds(), batch=BATCH), wanted, rtol=1e-5)


def test_training_and_the_exported_operator_read_the_same_places() -> None:
    table = trained().tables[2]
    ids = torch.arange(0, 20000, 77)
    in_training = table(ids)
    with torch.no_grad():
        assert torch.equal(in_training, table(ids))
    with pytest.raises(IndexError, match="20000"):
        table(torch.tensor([20000]))


def rounded(array: np.ndarray, bits: int, target: str) -> np.ndarray:
    """The values that an array has in a file of this format: [-127, 127] and [-8, 7], on ExecuTorch [-128, 127]."""
    largest = {("tflite", 8): 127, ("executorch", 8): 127.5, ("executorch", 4): 7.5}.get((target, bits), 0)
    if bits == 32:
        return array
    step = np.float32(np.abs(array).max() / largest if largest else max(array.max() / 7, array.min() / -8))
    low, high = (-8, 7) if bits == 4 else (-128, 127)
    return (np.clip(np.rint(array / step), low, high) * step).astype(np.float32)


@pytest.mark.parametrize("target", ["tflite", "executorch"])
@pytest.mark.parametrize(("recipe", "bits"), [("float32", 32), ("int8", 8), ("int4", 4)])
def test_files_compute_with_the_values_of_the_shared_array(
    captured: Captured, tmp_path: Path, target: str, recipe: str, bits: int
) -> None:
    backend, file, package = BACKENDS[target]
    pytest.importorskip(package)
    spec = spec_for_recipe(recipe, mlp_bits=32, fallback_bits=32)
    lowered = registry.load("converters.targets", target).lower(
        LowerRequest(captured=captured, spec=spec, folder=tmp_path)
    )
    assert captured.recommender is not None
    model, arrays = load(captured.recommender)
    held = {**arrays, "array.0.shared": rounded(arrays["array.0.shared"], bits, target)}
    session = registry.load("runtimes.backends", backend).open_model(
        tmp_path / file, data_files=(), known=lowered.signatures, signature=None, threads=1, kernels="default"
    )
    signature = session.signature
    given = {info.name: feeds()[info.name].astype(info.dtype) for info in signature.inputs}
    got = session.run(given)[signature.outputs[0].name]
    session.close()
    np.testing.assert_allclose(got, run_reference(model, held, feeds(), batch=BATCH), atol=2e-6)
    tables = [outcome for outcome in lowered.outcomes if outcome.layer.startswith("tables")]
    assert abs(sum(outcome.weight_bytes for outcome in tables) - 1001 * bits / 8) <= 3
    assert all(outcome.weight_bits == bits and "1001 values for 3 tables" in outcome.got for outcome in tables)
