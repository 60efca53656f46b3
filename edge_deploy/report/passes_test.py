"""The report shows what each pass did."""

from dataclasses import replace

from edge_deploy.core.passes import BIASES, EQUALISE, PassRecord
from edge_deploy.core.serde import write_json
from edge_deploy.report import write_report
from edge_deploy.report.report_test import cnn_artifact


def written(folder, passes):
    (folder / "tflite-int8").mkdir()
    artifact = replace(cnn_artifact("tflite", "int8"), passes=passes)
    write_json(artifact, folder / "tflite-int8" / "manifest.json")
    write_report(folder, folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


def test_passes_stand_in_the_report_with_what_was_measured(tmp_path):
    applied = PassRecord(
        name=BIASES, applied=True, samples=64, before_snr_db=19.51, after_snr_db=20.97,
        before_agreement=0.875, after_agreement=0.9375,
    )  # fmt: skip
    left_out = PassRecord(name=EQUALISE, applied=False, detail="does not lower the error on held calibration samples")
    text = written(tmp_path, (left_out, applied))
    assert "Passes before and after" in text
    for shown in ("19.5 -&gt; 21.0", "87.5% -&gt; 93.8%", "not applied", "does not lower the error", EQUALISE):
        assert shown in text
    assert "Accuracy" not in text[text.index("Passes before") : text.index("What the layers became")]


def test_an_artifact_without_passes_has_no_such_section(tmp_path):
    assert "Passes before and after" not in written(tmp_path, ())
