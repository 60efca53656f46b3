import json

import pytest

from edge_deploy.api.sweep import sweep
from edge_deploy.core.errors import BadInput
from partitioner.study.grid import Grid

GRID = Grid(
    levels={"uplink_bps": (20e6, 100e6), "rtt_s": (0.005, 0.02), "edge_load": (0.0, 1.0), "cloud_load": (0.0, 1.0)}
)
SLOWDOWN = {
    "schema_version": 1,
    "net": "alexnet",
    "points": [{"what": "cpu", "at": 1.0, "round": 0, "seconds": 2.0, "idle_s": 1.0}],
}


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    for module in ("keras", "torch", "pyarrow"):
        pytest.importorskip(module)
    out = tmp_path_factory.mktemp("sweep")
    # The curve under load is not what is tested here, and takes the longest.
    (out / "slowdown.json").write_text(json.dumps(SLOWDOWN))
    stages = []
    study = sweep(out, nets=["lenet"], grid=GRID, measure=6, rounds=3, progress=stages.append)
    return out, study, stages


def test_a_sweep_is_labelled_modelled_and_its_error_is_measured(swept):
    out, study, _ = swept
    assert study.provenance == "modelled"
    assert study.findings[0].values == 10 * len(GRID)
    overall = study.model_error[0]
    assert (overall.net, overall.pairs) == ("all", 6)
    assert 0 <= overall.median <= overall.p95
    assert all(pair.measured_s[0] > pair.conditions["rtt_s"] for pair in study.pairs)
    page = (out / "report.html").read_text()
    assert "How far the model is off" in page
    assert "modelled" in page
    assert json.loads((out / "study.json").read_text())["provenance"] == "modelled"


def test_a_sweep_that_is_there_is_found_and_nothing_is_run_again(swept):
    out, study, stages = swept
    assert any("profile lenet" in stage for stage in stages)
    assert any("measure 6 pairs" in stage for stage in stages)
    written = {path: path.stat().st_mtime_ns for path in (out / "points").glob("*.parquet")}
    again = []
    repeated = sweep(out, nets=["lenet"], grid=GRID, measure=6, rounds=3, progress=again.append)
    assert not any("profile" in stage or "measure" in stage for stage in again)
    assert written == {path: path.stat().st_mtime_ns for path in (out / "points").glob("*.parquet")}
    assert repeated.pairs == study.pairs


def test_only_the_pairs_that_are_missing_are_run_again(swept):
    out, study, _ = swept
    (log,) = (out / "pairs").glob("*.jsonl")
    lines = [line for line in log.read_text().splitlines() if line]
    # As if it had been killed while it wrote the last line.
    log.write_text("\n".join([*lines[:-1], lines[-1][:20]]))
    stages = []
    repeated = sweep(out, nets=["lenet"], grid=GRID, measure=6, rounds=3, progress=stages.append)
    assert any("measure 1 pairs" in stage for stage in stages)
    kept = {json.loads(line)["number"] for line in lines[:-1]}
    before = {pair.number: pair for pair in study.pairs}
    assert all(pair == before[pair.number] for pair in repeated.pairs if pair.number in kept)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nets": ["lennet"]}, "lennet: must be some of"),
        ({"nets": []}, "must be some of"),
        ({"edge_slower": 0.0}, "edge_slower must be positive"),
        ({"repeats": 0}, "repeats and rounds at least 1"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_run(tmp_path, options, message):
    with pytest.raises(BadInput, match=message):
        sweep(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
