"""A compressed checkpoint goes through convert as it is, hot rows included, into both formats."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

torch = pytest.importorskip("torch")
pytest.importorskip("executorch")
pytest.importorskip("ai_edge_litert")

from edge_deploy.api.convert import convert  # noqa: E402
from edge_deploy.api.request import convert_request  # noqa: E402
from edge_deploy.cli.main import app  # noqa: E402
from edge_deploy.core.errors import BadInput  # noqa: E402
from edge_deploy.zoo import dlrm  # noqa: E402

FACTORY = """
from edge_deploy.zoo import dlrm

def compressed_net():
    return dlrm.build(dlrm.DlrmConfig(dense_features=3, table_rows=(900, 40, 6), dim=8, bottom=(8,), top=(8,)))
"""
INPUTS = ("dense:1,3", "sparse:1,3:int64")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("compress")
    (place / "compressed_net.py").write_text(FACTORY, encoding="utf-8")
    module = dlrm.build(dlrm.DlrmConfig(dense_features=3, table_rows=(900, 40, 6), dim=8, bottom=(8,), top=(8,)))
    torch.save(module.state_dict(), place / "weights.pt")
    rng = np.random.default_rng(0)
    ids = np.stack([rng.zipf(1.5, 2000) % rows for rows in (900, 40, 6)], axis=1)
    np.savez(place / "train.npz", dense=rng.standard_normal((2000, 3)).astype(np.float32), sparse=ids)
    return place


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> Result:
    monkeypatch.chdir(folder)
    given = [option for text in INPUTS for option in ("--input", text)]
    command = ["compress", "compressed_net:compressed_net", "--weights", "weights.pt", *given, *options]
    return CliRunner().invoke(app, command)


def test_bytes_and_errors_are_told_and_both_formats_store_what_was_compressed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = run(folder, monkeypatch, "--hot", "5%", "--counts", "train.npz", "--out", "small", "--json")
    assert answer.exit_code == 0, answer.output
    report = json.loads(answer.stdout)
    assert sum(table["hot_rows"] for table in report["tables"]) == round(0.05 * 946)
    assert 0.5 < report["tables"][0]["hits"] <= 1
    request = convert_request(
        "compressed_net:compressed_net",
        to=["tflite", "executorch"],
        precision=["int4"],
        weights=folder / "small" / "weights.pt",
        inputs=INPUTS,
        out=folder / "artifacts",
        fallback="int8",
        search_path=[str(folder)],
    )
    done = convert(request)
    for artifact in done.artifacts:
        tables = [outcome for outcome in artifact.outcomes if outcome.layer.startswith("tables")]
        if artifact.format == "tflite":
            held = sum(outcome.weight_bytes + outcome.beside_bytes for outcome in tables)
            assert held == report["bytes"]
        assert "hot rows stay float16" in tables[0].reason
        # Nothing of the tables was rounded again: what is left is the rounding of the MLPs and their inputs.
        assert artifact.verification.comparisons[0].snr_db > 30


def test_counts_may_come_from_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {"tables.0": np.arange(900), "tables.1": np.zeros(40, np.int64), "tables.2": np.zeros(6, np.int64)}
    np.savez(folder / "counts.npz", allow_pickle=False, **counts)
    answer = run(folder, monkeypatch, "--hot", "1%", "--counts", "counts.npz", "--out", "counted", "--json")
    assert answer.exit_code == 0, answer.output
    assert [table["hot_rows"] for table in json.loads(answer.stdout)["tables"]] == [9, 0, 0]
    state = torch.load(folder / "counted" / "weights.pt", weights_only=True)
    assert state["tables.0.hot_rows"].tolist() == list(range(891, 900))
    np.savez(folder / "counts.npz", allow_pickle=False, **{**counts, "tables.2": np.zeros(7, np.int64)})
    answer = run(folder, monkeypatch, "--hot", "1%", "--counts", "counts.npz", "--out", "other")
    assert isinstance(answer.exception, BadInput)
    assert "the table's 6 rows" in str(answer.exception)


def test_what_cannot_be_compressed_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for options, told in ((("--hot", "5%"), "--counts"), (("--hot", "many"), "must be a share")):
        answer = run(folder, monkeypatch, *options, "--out", "other")
        assert isinstance(answer.exception, BadInput)
        assert told in str(answer.exception)
    assert not (folder / "other").exists()
