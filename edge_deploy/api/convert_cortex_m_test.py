"""ExecuTorch files for Cortex-M are written, read back and labelled as not run; what the core has not is refused."""

import numpy as np
import pytest

import edge_deploy
from edge_deploy.api.fit import fit
from edge_deploy.core.errors import BadInput, EdgeDeployError, Unsupported


def asked(tmp_path, **changes):
    samples = tmp_path / "samples.npz"
    np.savez(samples, image=np.random.default_rng(0).normal(size=(8, 1, 8, 8)).astype(np.float32))
    wishes = {
        "inputs": ["image:1,1,8,8"],
        "to": ["executorch"],
        "precision": ["int8"],
        "delegate": "cortex-m4",
        "calibrate": samples,
        "out": tmp_path / "out",
        **changes,
    }
    return edge_deploy.convert_request("edge_deploy.zoo.small_cnn:small_cnn", **wishes)


def test_other_precisions_targets_and_cores_are_refused(tmp_path):
    with pytest.raises(Unsupported, match="kernels are INT8"):
        asked(tmp_path, precision=["int4"], fallback="int8")
    with pytest.raises(BadInput, match="--to executorch alone"):
        asked(tmp_path, to=["tflite", "executorch"])
    with pytest.raises(BadInput, match="did you mean cortex-m4"):
        asked(tmp_path, delegate="cortex-m44")


def test_a_file_for_a_core_tells_its_planned_memory_and_operators_and_is_labelled_as_not_run(tmp_path):
    why = "needs tosa-tools, which pins an older NumPy than the rest; `make bench-cortex_m` runs this beside it"
    pytest.importorskip("tosa_serializer", reason=why)
    from runtimes.formats.pte import read_pte

    conversion = edge_deploy.convert(asked(tmp_path))
    (artifact,) = conversion.artifacts
    folder = conversion.folder / "executorch-int8-cortex-m4"
    method = read_pte(folder / "model.pte").main
    assert any(name.startswith("cortex_m::quantized_conv2d") for name in method.operators)
    assert artifact.outcomes and all(outcome.is_as_asked for outcome in artifact.outcomes)
    assert all("not run here" in outcome.runs_on for outcome in artifact.outcomes)
    assert any(f"planned memory {method.planned_bytes} bytes" in warning for warning in artifact.warnings)
    assert artifact.verification.comparisons == ()
    report = fit(folder, device="nucleo-f446re")
    assert report.needs[1].amount.bytes == method.planned_bytes > 0
    assert any("cortex_m::quantized_conv2d" in note for note in report.footprint.notes)
    with pytest.raises(EdgeDeployError):
        edge_deploy.open_session(folder)


def test_calibration_is_asked_for(tmp_path):
    pytest.importorskip("executorch")
    with pytest.raises(BadInput, match="pass --calibrate"):
        edge_deploy.convert(asked(tmp_path, calibrate=None))
