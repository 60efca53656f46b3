"""compare, benchmark --fail-if-slower, loadgen and bench-suite as users start them."""

import json
import shutil

import pytest

from edge_deploy.cli import main

NULL = ("--backend", "null", "--min-seconds", "0", "--num-runs", "6", "--rounds", "6", "--gate", "off")


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return ended.value.code, captured.out, captured.err


@pytest.fixture
def two(tmp_path):
    """Two files that the null runtime never opens."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.tflite").write_bytes(name.encode() * 100)
    return tmp_path


def artifact(folder, name):
    from edge_deploy.core.artifact import Artifact, FileEntry, Signature
    from edge_deploy.core.digest import file_sha256
    from edge_deploy.core.layer_graph import LayerGraph
    from edge_deploy.core.quant_spec import spec_for_recipe
    from edge_deploy.core.serde import write_json
    from edge_deploy.core.tensor import TensorInfo

    made = folder / name
    made.mkdir()
    (made / "model.bin").write_bytes(name.encode() * 50)
    info = TensorInfo(name="x", shape=(1, 3), dtype="float32")
    entry = FileEntry(
        path="model.bin",
        role="model",
        bytes=(made / "model.bin").stat().st_size,
        sha256=file_sha256(made / "model.bin"),
    )
    write_json(
        Artifact(
            name=name,
            format="tflite",
            spec=spec_for_recipe("int8"),
            source="net.h5",
            kind="generic",
            files=(entry,),
            source_inputs=(info,),
            source_outputs=(info,),
            signatures=(Signature(name="main", inputs=(info,), outputs=(info,)),),
            graph=LayerGraph(inputs=(info,), outputs=(), layers=()),
            outcomes=(),
            toolchain={},
        ),
        made / "manifest.json",
    )
    return made


def test_benchmark_keeps_reports_that_compare_reads(tmp_path, capsys):
    one, other = artifact(tmp_path, "one"), artifact(tmp_path, "other")
    code, _, err = run(capsys, "benchmark", one, other, *NULL, "--out", tmp_path / "reports", "--json")
    assert code == 0, err
    files = sorted((tmp_path / "reports").iterdir())
    assert [file.name for file in files] == ["0-one-tflite-int8.json", "1-other-tflite-int8.json"]
    code, out, _ = run(capsys, "compare", one, files[1], "--json")
    assert code == 0
    found = json.loads(out)
    assert found["interleaved"]
    assert found["ratio"]["low"] <= found["ratio"]["median"] <= found["ratio"]["high"]


def test_compare_refuses_unlike_reports_by_name_and_fails_on_a_slow_down(tmp_path, capsys):
    one = artifact(tmp_path, "one")
    run(capsys, "benchmark", one, *NULL, "--out", tmp_path / "a", "--json")
    (base,) = (tmp_path / "a").iterdir()
    report = json.loads(base.read_text())
    slow, unlike = tmp_path / "slow.json", tmp_path / "unlike.json"
    slow.write_text(json.dumps(report | {"rounds_s": [[2 * x for x in r] for r in report["rounds_s"]]}))
    unlike.write_text(
        json.dumps(report | {"conditions": report["conditions"] | {"threads": 2, "kernels": "x"}, "group": "h"})
    )
    code, _, err = run(capsys, "compare", slow, base, "--fail-if-slower", "5%")
    assert code == 8
    assert "more than 5% slower" in err
    code, _, err = run(capsys, "compare", base, slow, "--fail-if-slower", "5%")
    assert code == 0
    code, _, err = run(capsys, "compare", unlike, base)
    assert code == 3
    assert "other threads (2 and 1)" in err
    assert "other runtime" in err
    code, out, _ = run(capsys, "compare", unlike, base, "--allow", "threads", "--allow", "runtime")
    assert code == 0
    assert "note: other threads, as allowed" in out
    code, _, err = run(capsys, "compare", tmp_path / "absent.json", base)
    assert code == 3
    (tmp_path / "torn.json").write_text(base.read_text()[:100])
    code, _, err = run(capsys, "compare", tmp_path / "torn.json", base)
    assert code == 3
    assert "not JSON" in err


def test_wrong_options_are_told_before_anything_runs(two, capsys):
    for arguments, told in (
        (("benchmark", two / "a.tflite", "--fail-if-slower", "5%"), "needs a second ARTIFACT"),
        (("benchmark", two / "a.tflite", two / "b.tflite", "--fail-if-slower", "much"), 'such as "5%"'),
        (("benchmark", two / "a.tflite", "--gate", "maybe"), "wait, flag, refuse or off"),
        (("benchmark", two / "a.tflite", "--cpus", "none,1"), "CPU numbers"),
        (("loadgen", two / "a.tflite", "--scenario", "burst"), "single-stream, multi-stream"),
        (("loadgen", two / "a.tflite", "--length", "endless"), "normal, quick, rapid"),
        (("loadgen", two / "a.tflite", "--mode", "accuracy"), "needs --task and --data"),
        (("loadgen", two / "a.tflite", "--task", "tiny", "--data", two), "is a suite"),
        (("bench-suite", "tiny", "--data", two / "absent"), "no such folder"),
        (("bench-suite", "tinny", "--data", two), "did you mean tiny"),
        (("bench-suite", "tiny", "--data", two, "--artifact", "dlrm=x"), "no task of this suite"),
        (("bench-suite", "tiny", "--data", two, "--part", "half"), "all or evaluate"),
    ):
        code, _, err = run(capsys, *arguments)
        assert code == 3, (arguments, err)
        assert told in err, (arguments, err)


def test_cpus_that_the_process_may_not_use_are_refused(tmp_path, capsys):
    code, _, err = run(capsys, "benchmark", artifact(tmp_path, "one"), *NULL, "--cpus", "4000")
    assert code == 3
    assert "cpus 4000: must be among" in err


def test_the_suite_prints_a_row_for_each_task_and_model_and_damaged_ones_fail_alone(data, tmp_path, capsys):
    pytest.importorskip("ai_edge_litert")
    good = data / "models" / "mlperf_tiny_kws_dscnn" / "kws_ref_model.tflite"
    code, out, err = run(
        capsys, "bench-suite", "tiny", "--data", data, "--artifact", good, "--limit", "100", "--min-seconds", "0",
        "--gate", "off", "--out", tmp_path / "suite.json",
    )  # fmt: skip
    assert code == 0, err
    assert "keyword spotting" in out
    assert "100 of 1000" in out
    assert "skipped: image classification" in out
    assert json.loads((tmp_path / "suite.json").read_text())["rows"][0]["precision"] == "int8"
    (tmp_path / "torn.tflite").write_bytes(good.read_bytes()[:5000])
    code, _, err = run(capsys, "bench-suite", "tiny", "--data", data, "--artifact", tmp_path / "torn.tflite")
    assert code in (3, 6)
    assert "torn.tflite" in err


def test_a_floor_that_is_missed_ends_with_8_only_on_demand(data, tmp_path, capsys):
    pytest.importorskip("ai_edge_litert")
    shutil.copytree(data / "eval" / "mlperf_tiny_kws01", tmp_path / "kws01")
    (tmp_path / "kws01").chmod(0o755)  # the copy of a folder that may not be written
    labels = tmp_path / "kws01" / "y_labels.csv"
    labels.chmod(0o644)
    rows = [line.split(",") for line in labels.read_text().splitlines()]
    labels.write_text("\n".join(f"{name},{classes},{(int(label) + 1) % 12}" for name, classes, label in rows))
    model = data / "models" / "mlperf_tiny_kws_dscnn" / "kws_ref_model.tflite"
    given = ("bench-suite", "keyword-spotting", "--data", tmp_path, "--artifact", model, "--limit", "100")
    code, out, _ = run(capsys, *given, "--min-seconds", "0", "--gate", "off", "--check")
    assert code == 8
    assert "missed" in out


def test_a_suite_of_nothing_but_failures_fails_as_they_did(data, tmp_path, capsys):
    pytest.importorskip("ai_edge_litert")
    shutil.copytree(data / "eval" / "mlperf_tiny_kws01", tmp_path / "kws01")
    (tmp_path / "kws01").chmod(0o755)  # the copy of a folder that may not be written
    (tmp_path / "kws01" / "tst_000000_Stop_7.bin").write_bytes(b"cut")
    (tmp_path / "kws01" / "y_labels.csv").chmod(0o644)
    (tmp_path / "kws01" / "y_labels.csv").write_text("tst_000000_Stop_7.bin,12,7\n")
    model = data / "models" / "mlperf_tiny_kws_dscnn" / "kws_ref_model.tflite"
    code, out, err = run(
        capsys, "bench-suite", "keyword-spotting", "--data", tmp_path, "--artifact", model, "--min-seconds", "0",
        "--gate", "off",
    )  # fmt: skip
    assert code == 3
    assert "failed: " in out
    assert "3 bytes: keyword spotting takes 490" in err


def test_loadgen_judges_an_accuracy_run_by_the_labels(data, tmp_path, capsys):
    pytest.importorskip("ai_edge_litert")
    pytest.importorskip("mlperf_loadgen")
    model = data / "models" / "mlperf_tiny_ic_resnet8" / "pretrainedResnet_quant.tflite"
    code, out, err = run(
        capsys, "loadgen", model, "--mode", "accuracy", "--task", "image-classification", "--data", data,
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert code == 0, err
    assert "accuracy 0.8500" in out
    assert (tmp_path / "out" / "mlperf_log_detail.txt").stat().st_size > 0
