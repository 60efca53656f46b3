"""A recommender at INT4 as generated C: rows lie in flash two values a byte; every bit is that of reference kernels."""

import numpy as np
import pytest

import edge_deploy
from converters.c.graph import read_graph
from converters.c.vectors import random_inputs
from edge_deploy.core.serde import write_json
from edge_deploy.zoo.dlrm import CONFIG_VARIABLE, DlrmConfig
from runtimes.formats.facts import read_facts
from runtimes.session import open_session


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clicks")
    config = DlrmConfig(dense_features=5, table_rows=(40, 9, 17), dim=6)
    write_json(config, folder / "dlrm.json")
    random = np.random.default_rng(0)
    ids = np.stack([random.integers(0, rows, 64) for rows in config.table_rows], 1)
    np.savez(folder / "clicks.npz", dense=random.normal(size=(64, 5)).astype(np.float32), sparse=ids)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CONFIG_VARIABLE, str(folder / "dlrm.json"))
        request = edge_deploy.convert_request(
            "edge_deploy.zoo.dlrm:configured",
            to=["c"],
            precision=["int4"],
            for_device="mcu",
            calibrate=folder / "clicks.npz",
            inputs=["dense:1,5", "sparse:1,3:int64"],
            out=folder / "out",
        )
        conversion = edge_deploy.convert(request)
    return conversion.artifacts[0], conversion.folder / "c-int4-mcu"


def test_rows_are_packed_without_a_fallback_and_the_manifest_says_so(project):
    artifact, folder = project
    tables = [outcome for outcome in artifact.outcomes if outcome.op == "GATHER"]
    assert [outcome.weight_bytes for outcome in tables] == [40 * 3, 9 * 3, 17 * 3]
    assert all(outcome.got.startswith("int4") and outcome.is_as_asked for outcome in tables)
    stored = [fact for fact in read_facts(folder / "model.c") if fact.op == "GATHER"]
    assert [(fact.weight_dtype, fact.weight_bits) for fact in stored] == [("int4", 4.0)] * 3


def test_every_bit_is_that_of_the_reference_kernels(project):
    _, folder = project
    ours, theirs = open_session(folder), open_session(folder / "model.tflite", kernels="reference", trusted=True)
    inputs = random_inputs(read_graph(folder / "model.tflite"), 200, seed=3)
    seen = set()
    for number in range(200):
        got = ours.run({info.name: inputs[k][number] for k, info in enumerate(ours.signature.inputs)})
        want = theirs.run({info.name: inputs[k][number] for k, info in enumerate(theirs.signature.inputs)})
        assert [a.tobytes() for a in got.values()] == [a.tobytes() for a in want.values()]
        seen.add(next(iter(got.values())).tobytes())
    assert len(seen) > 10
