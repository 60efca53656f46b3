"""Quantization-aware training as a user does it: from a float CNN to files that answer as what was trained."""

import json

import numpy as np
import pytest

pytest.importorskip("executorch")

from converters.capture import capture
from converters.compress.qat_train import QatPlan
from converters.compress.trained_layers import load_trained_layers
from converters.contracts import CaptureRequest
from edge_deploy.api.qat import QatRequest, train_for_integers
from edge_deploy.api.request import parse_input
from edge_deploy.cli.main import main
from edge_deploy.core.errors import BadInput

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A trained CNN with batch norms, training samples and test samples."""
    import torch

    from edge_deploy.zoo.small_cnn import train_digits, write_npz

    folder = tmp_path_factory.mktemp("digits")
    network, training, test = train_digits(seed=2, epochs=4)
    torch.save(network.state_dict(), folder / "digits.pt")
    write_npz((training[0][:700], training[1][:700]), folder / "train.npz")
    write_npz((test[0][:200], test[1][:200]), folder / "test.npz")
    return folder


def source(folder):
    return CaptureRequest(
        source="edge_deploy.zoo.small_cnn:small_cnn",
        weights=folder / "digits.pt",
        inputs=(parse_input("image:1,1,8,8"),),
    )


@pytest.fixture(scope="module")
def trained(digits):
    """Trained for INT4 and converted to both formats."""
    request = QatRequest(
        source=source(digits),
        data=digits / "train.npz",
        validation=digits / "test.npz",
        out=digits / "qat",
        plan=QatPlan(epochs=3, batch=32, crop=1),
    )
    return train_for_integers(request)


def test_batch_norms_are_trained_along_and_the_result_answers_like_the_float_model(trained):
    assert trained.folded_norms >= 3 and trained.layers > trained.folded_norms
    assert len(trained.curve) == 3 and trained.held == 200
    assert trained.float_agreement > 0.95 and trained.accuracy > trained.float_accuracy - 0.03


def test_files_of_both_formats_answer_as_what_was_trained(trained):
    assert {each.artifact for each in trained.mismatches} == {"tflite-int4", "executorch-int4"}
    for each in trained.mismatches:
        assert each.top1 <= 0.02 and each.snr_db > 20


def test_the_scales_that_training_learned_stand_in_the_tflite_file_bit_for_bit(digits, trained):
    from converters.tflite.flatbuffer import read_model
    from converters.tflite.structure import views

    home = digits / "again"
    home.mkdir()
    capture(CaptureRequest(source=str(digits / "qat" / "model.pt2")), home)
    learned = load_trained_layers(home)
    (view,) = views(read_model(digits / "qat" / "artifacts" / "tflite-int4" / "model.tflite"))
    weighted = {
        node.layer: node for node in view.nodes if node.kind.endswith("CONV_2D") or node.kind.startswith("FULLY")
    }
    assert learned.bits == 4 and weighted.keys() == learned.weight_scales.keys()
    for layer, node in weighted.items():
        stored = view.tensor(node.inputs[1]).quantization
        assert np.array_equal(np.asarray(stored.scale, np.float32), learned.weights()[layer]), layer
    by_name = {node.layer: view.tensor(node.outputs[0]).quantization for node in view.nodes}
    shared = [name for name in learned.activations if name in by_name]
    same = [
        name
        for name in shared
        if (float(by_name[name].scale[0]), int(by_name[name].zeroPoint[0])) == tuple(learned.activations[name])
    ]
    assert len(shared) >= len(weighted) and same == shared


def test_the_same_scales_stand_in_the_executorch_program(digits, trained):
    from converters.executorch.program import attribute, load_program

    graph = load_program(digits / "qat" / "artifacts" / "executorch-int4" / "quantized.pt2").module(check_guards=False)
    found = {
        attribute(graph, str(node.args[1].target)).numpy().tobytes()
        for node in graph.graph.nodes
        if "dequantize_per_channel" in str(node.target)
    }
    learned = load_trained_layers(digits / "again")
    for layer, scales in learned.weights().items():
        assert scales.tobytes() in {value.astype(np.float32).tobytes() for value in map(_floats, found)}, layer


def _floats(raw):
    return np.frombuffer(raw, np.float32)


def test_int8_of_a_net_that_was_trained_for_int4_finds_its_own_scales(digits, trained, capsys):
    words = ["convert", str(digits / "qat" / "model.pt2"), "--to", "tflite", "--precision", "int8", "--json"]
    words += ["--calibrate", str(digits / "qat" / "calibration.npz"), "--out", str(digits / "int8")]
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 0 and json.loads(capsys.readouterr().out)
    assert "compensated-rounding" in (digits / "int8" / "tflite-int8" / "manifest.json").read_text()


def test_what_cannot_be_trained_is_refused_with_the_reason(digits):
    request = QatRequest(source=source(digits), data=digits / "train.npz", out=digits / "no", plan=QatPlan(), limit=50)
    with pytest.raises(BadInput, match="50 samples: at least 192"):
        train_for_integers(request)
    assert not (digits / "no").exists()
    with pytest.raises(BadInput, match="bits = 3: must be 4 or 8"):
        QatPlan(bits=3)
    with np.load(digits / "train.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    arrays["y"] = arrays["y"] + 5
    np.savez(digits / "wrong.npz", **arrays)
    wrong = QatRequest(source=source(digits), data=digits / "wrong.npz", out=digits / "no", plan=QatPlan(batch=16))
    with pytest.raises(BadInput, match="labels run from 5 to 14; the model has 10 outputs"):
        train_for_integers(wrong)
