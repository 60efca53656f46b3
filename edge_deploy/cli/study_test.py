import json
import re

import pytest

from edge_deploy.cli.main_test import run

SWEEP = "network_mbit_s,edge_cpu_stress_pct,cut_layer,total_s,edge_s,cloud_s\n" + "".join(
    f"{net},{stress},{cut},{0.5 + 0.01 * stress * cut + 10 * (3 - cut) / net},{0.1 * cut},0.1\n"
    for net in (10, 25, 50)
    for stress in (0, 50, 100)
    for cut in (1, 2, 3)
)


def test_a_measured_sweep_becomes_tables_json_and_a_page(tmp_path):
    (tmp_path / "net<b>.csv").write_text(SWEEP)
    code, out, err = run("study", "adaptive-dnn", "net<b>.csv", "--out", "study", cwd=tmp_path)
    assert code == 0, err
    assert "best cut moves in" in out
    assert "share of the variance" in out
    page = (tmp_path / "study/report.html").read_text()
    assert "<svg" in page
    assert "net<b>" not in page
    assert not re.search(r"(src|href)=.?https?:", page)
    code, out, _ = run("study", "adaptive-dnn", "net<b>.csv", "--json", cwd=tmp_path)
    found = json.loads(out)["study"]
    assert (found["provenance"], found["findings"][0]["conditions"]) == ("measured", 9)
    kept = json.loads((tmp_path / "study/study.json").read_text())
    assert kept["findings"][0]["moved"] == found["findings"][0]["moved"]
    code, _, err = run("study", "adaptive-dnn", "net<b>.csv", "--out", "study", cwd=tmp_path)
    assert code == 3
    assert "--force" in err


def test_the_published_sweep_is_reproduced_from_the_command_line(data):
    code, out, err = run("study", "adaptive-dnn", data / "tables/adaptive_dnn_qub_dev/lenet.csv.xz")
    assert code == 0, err
    assert "178 of 243" in out
    assert re.search(r"0\.0151\b.*0\.0121\b", out)
    assert "not shown to pay" in out


def test_scission_s_published_answers_come_from_the_command_line(data):
    words = ["--must", "device=6", "--must", "edge=7", "--must", "cloud=13"]
    code, out, err = run("study", "scission", data / "tables/scission_qub", *words)
    assert code == 0, err
    assert [line.split()[0] for line in out.splitlines()[2:7]] == ["9.0106", "9.0594", "9.0721", "9.1209", "9.1511"]
    code, out, _ = run("study", "scission", data / "tables/scission_qub", "--top", "1", "--json")
    assert json.loads(out)["answers"][0]["total_s"] == pytest.approx(0.86, abs=0.005)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["adaptive-dnn", "nowhere"], 3, "no such file"),
        (["adaptive-dnn", "bad.csv"], 3, "no column of the cut"),
        (["scission", "nowhere"], 3, "cannot be read"),
        (["scission", "bad.csv", "--must", "device"], 3, "must be TIER=LAYER"),
        (["sweep", "--out", "out", "--net", "lennet"], 3, "must be some of lenet"),
        (["sweep", "--out", "out", "--measure", "-1"], 3, "measure at least 0"),
        (["sweep"], 2, "--out"),
        (["adaptive-dnn"], 2, "PATH"),
        (["adaptive_dnn", "x"], 2, "adaptive-dnn"),
    ],
)
def test_bad_input_ends_with_its_code_and_no_traceback(tmp_path, words, code, message):
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    found, out, err = run("study", *words, cwd=tmp_path)
    assert (found, out) == (code, "")
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("command", ["adaptive-dnn", "scission", "sweep"])
def test_help_fits_the_terminal(monkeypatch, command, width):
    monkeypatch.setenv("COLUMNS", str(width))
    code, out, _ = run("study", command, "--help")
    assert code == 0
    assert max(map(len, out.splitlines())) <= width
    assert "list[" not in out
