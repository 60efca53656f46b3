import json
import subprocess
import sys

import pytest


def run(*words, cwd=None, timeout=600):
    """The command as a user types it: exit code, stdout, stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "edge_deploy.cli.main", *map(str, words)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=timeout,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_help_names_every_command_and_exit_code():
    code, out, _ = run("--help")
    assert code == 0
    for word in ("convert", "inspect", "verify", "benchmark", "report", "doctor", "list", "demo", "8 verification"):
        assert word in out


COMMANDS = (
    "convert",
    "train",
    "calibration",
    "inspect",
    "verify",
    "benchmark",
    "cuts",
    "plan",
    "profile",
    "package",
    "sign",
    "verify-signature",
    "debug",
    "search",
    "split",
    "study",
    "report",
    "doctor",
    "list",
    "demo",
)


@pytest.mark.parametrize("width", [80, 120])
def test_help_fits_the_terminal_and_explains_every_option(monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    for command in ("", *COMMANDS):
        code, out, _ = run(*([command] if command else []), "--help")
        assert code == 0
        assert max(map(len, out.splitlines())) <= width, command
        assert "list[" not in out.partition("Options:")[2]
        assert "..." not in out.partition("Commands:")[2], "a description that is cut off"
    assert max(map(len, run("convert", "--help")[1].splitlines())) > width - 15


def test_help_loads_nothing_heavy():
    code = (
        "import sys, runpy; sys.argv = ['edge-deploy', 'convert', '--help']\n"
        "try:\n    runpy.run_module('edge_deploy.cli.main', run_name='__main__')\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "heavy = {'numpy', 'torch', 'tensorflow', 'PIL', 'rich.markdown', 'pygments'} & set(sys.modules)\n"
        "print(sorted(heavy), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_a_misspelt_option_is_a_usage_error():
    code, out, err = run("convert", "net.h5", "--percision", "int8")
    assert (code, out) == (2, "")
    assert "--precision" in err


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["convert", "missing.h5"], "missing.h5"),
        (["convert"], "name one model"),
        (["convert", "net.h5", "--to", "tflit"], "did you mean tflite?"),
        (["inspect", "missing.tflite"], "no such file"),
        (["verify", "nowhere"], "nowhere"),
        (["benchmark", "nowhere"], "nowhere"),
        (["report", "nowhere"], "holds no artifact"),
    ],
)
def test_bad_input_ends_with_its_code_and_a_message_without_traceback(tmp_path, words, problem):
    (tmp_path / "net.h5").write_bytes(b"not a model")
    code, out, err = run(*words, cwd=tmp_path)
    assert (code, out) == (3, "")
    assert problem in err
    assert "Traceback" not in err
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.h5"]


def test_a_file_that_is_no_model_is_named_with_what_it_is(tmp_path):
    (tmp_path / "net.h5").write_bytes(b"PK\x03\x04 but not really")
    code, _, err = run("convert", "net.h5", cwd=tmp_path)
    assert code == 3
    assert "net.h5" in err


def test_an_error_is_also_json_on_request(tmp_path):
    code, out, err = run("inspect", "missing.tflite", "--json", cwd=tmp_path)
    assert code == 3
    assert json.loads(out)["error"]["class"] == "BadInput"
    assert "no such file" in err


def test_debug_shows_the_traceback(tmp_path):
    code, _, err = run("--debug", "inspect", "missing.tflite", cwd=tmp_path)
    assert code == 3
    assert "Traceback" in err


def test_list_tells_what_there_is_as_json():
    code, out, _ = run("list", "--json")
    known = json.loads(out)
    assert code == 0
    assert known["targets"] == ["c", "executorch", "tflite"]
    assert set(known["precisions"]) >= {"float32", "float16", "int8", "int4", "int8-dynamic", "int16x8"}
    assert known["solvers"] == ["enumerate", "min-cut"]
    assert {"raw", "requantize:int8", "requantize:int4"} <= set(known["codecs"])
    assert "host" in known["devices"]
    assert {"ic01", "mnist_evaluate"} <= set(known["datasets"])


def test_list_shows_what_each_target_makes_of_each_operator():
    code, out, _ = run("list", "--support")
    assert code == 0
    for word in ("CONV_2D", "aten.linear", "stored only", "refused", "int4-dynamic", "all others", "inflated at load"):
        assert word in out
    entries = json.loads(run("list", "--support", "--json")[1])["support"]
    assert {entry["status"] for entry in entries} == {"native", "stored only", "refused"}
    assert all(entry["reason"] for entry in entries if entry["status"] != "native")


def test_every_runtime_that_is_listed_can_open_models():
    from edge_deploy.core import registry

    for name in registry.names("runtimes.backends"):
        assert callable(registry.load("runtimes.backends", name).open_model), name


def test_doctor_looks_at_the_installation():
    code, out, _ = run("doctor", "--json")
    findings = json.loads(out)["findings"]
    assert code == int(any(finding["level"] == "problem" for finding in findings))
    assert any("Python" in finding["text"] for finding in findings)
