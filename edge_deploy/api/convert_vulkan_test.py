"""Files for Vulkan are written and labelled; what cannot be had is refused with the reason."""

import pytest

import edge_deploy
from edge_deploy.core.errors import BadInput, EdgeDeployError, Unsupported

SMALL = {"inputs": ["image:1,1,8,8"], "to": ["executorch"]}


def asked(tmp_path, **changes):
    wishes = {**SMALL, "precision": ["float32"], "delegate": "vulkan", "out": tmp_path / "out", **changes}
    return edge_deploy.convert_request("edge_deploy.zoo.small_cnn:small_cnn", **wishes)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("coreml", "on a Mac"), ("qnn", "AI Engine Direct SDK"), ("nnapi", "deprecated"), ("gpu", "inspect FILE --gpu")],
)
def test_delegates_that_cannot_be_had_are_refused_with_the_reason(tmp_path, name, reason):
    with pytest.raises(Unsupported, match=reason):
        asked(tmp_path, delegate=name)


def test_a_misspelt_delegate_and_one_for_another_target_are_bad_input(tmp_path):
    with pytest.raises(BadInput, match="did you mean vulkan"):
        asked(tmp_path, delegate="vulcan")
    with pytest.raises(BadInput, match="--to executorch alone"):
        asked(tmp_path, to=["tflite", "executorch"])
    with pytest.raises(Unsupported, match="float32 and float16"):
        asked(tmp_path, precision=["int8"])


def test_a_file_for_vulkan_is_written_and_labelled_as_not_run(tmp_path):
    pytest.importorskip("executorch")
    from runtimes.formats.pte import read_pte

    conversion = edge_deploy.convert(asked(tmp_path))
    (artifact,) = conversion.artifacts
    folder = conversion.folder / "executorch-float32-vulkan"
    assert read_pte(folder / "model.pte").main.delegates[0][0] == "VulkanBackend"
    assert artifact.outcomes and all("Vulkan, not run here" in outcome.runs_on for outcome in artifact.outcomes)
    assert artifact.verification.comparisons == () and "not run here" in artifact.verification.notes[0]
    assert any("not run here" in warning for warning in artifact.warnings)
    assert "not run here" in conversion.report.read_text()
    assert edge_deploy.read_artifact(folder) == artifact
    with pytest.raises(EdgeDeployError, match="Vulkan"):
        edge_deploy.open_session(folder)
