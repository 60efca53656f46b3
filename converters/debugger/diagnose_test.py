"""What is said of every layer of artifacts in both formats, held against artifacts that were really made."""

import numpy as np
import pytest

pytest.importorskip("executorch")

from converters.debugger.contracts import Rig
from converters.debugger.diagnose import ALL, ARTIFACT, diagnose_here
from converters.debugger.experiments import Experiment, run_experiments
from converters.debugger.rigs import open_rig
from converters.search.sensitivity import Uniform, measure_here
from edge_deploy.core.layer_errors import snr_db
from edge_deploy.core.quant_spec import LayerRule
from edge_deploy.core.serde import to_json

pytestmark = pytest.mark.slow

FORMATS = ("tflite", "executorch")
WEIGHTED = {"stem", "depthwise", "project", "head"}


def samples_of(small_net):
    with np.load(small_net[1]) as archive:
        return {"image": archive["image"]}


def rig_of(small_net, made, work) -> Rig:
    return open_rig(small_net[0], made.folder, made.target, made.spec, made.outcomes, work, samples=24)


def noise(rig, samples, layers):
    """Squared error of the answers with these layers' errors together, and of the artifact."""
    run = run_experiments({ARTIFACT: rig}, samples, [Experiment(name=ALL, choices=dict.fromkeys(layers, ARTIFACT))])
    last = list(run.statistics[ARTIFACT].values())[-1]
    return float(np.square(run.answers[ALL] - run.answers[""]).sum()), last.noise


def diagnosed(small_net, opened, tmp_path, target, recipe, calibration="samples.npz", *, with_int8=False):
    captured, feeds = small_net
    made = opened(target, recipe, calibration)
    count = len(samples_of(small_net)["image"])
    np.save(tmp_path / "labels.npy", np.full(count, np.nan))
    np.save(tmp_path / "measured.npy", np.zeros((count, 5)))
    return diagnose_here(
        captured=to_json(captured),
        artifact=to_json(made),
        int8=to_json(opened(target, "int8")) if with_int8 else None,
        feeds=str(feeds),
        labels=str(tmp_path / "labels.npy"),
        measured=str(tmp_path / "measured.npy"),
    )


@pytest.mark.parametrize("target", FORMATS)
@pytest.mark.parametrize("recipe", ["int8", "int4"])
def test_errors_of_all_layers_together_are_those_of_the_artifact(small_net, opened, tmp_path, target, recipe):
    rig = rig_of(small_net, opened(target, recipe), tmp_path)
    estimated, measured = noise(rig, samples_of(small_net), [site.layer for site in rig.sites])
    assert abs(10 * np.log10(estimated / measured)) < 2.5


@pytest.mark.parametrize("target", FORMATS)
def test_narrower_weights_have_larger_errors_of_their_own(small_net, opened, tmp_path, target):
    eight, four = (diagnosed(small_net, opened, tmp_path, target, recipe) for recipe in ("int8", "int4"))
    own = {layer.layer: layer for layer in four.layers}
    for layer in eight.layers:
        if layer.layer in WEIGHTED and own[layer.layer].weight_bits < 5:
            assert layer.own_snr_db > own[layer.layer].own_snr_db + 3
            assert layer.own_mse < own[layer.layer].own_mse
    assert eight.estimated.snr_db > four.estimated.snr_db


@pytest.mark.parametrize("target", FORMATS)
def test_what_a_layer_would_be_at_int8_comes_true(small_net, opened, tmp_path, target):
    found = diagnosed(small_net, opened, tmp_path, target, "int4", with_int8=True)
    layers = {layer.layer: layer for layer in found.layers}
    assert set(layers) >= WEIGHTED | {"image"}
    assert sum(layer.noise_share for layer in found.layers) == pytest.approx(1)
    worst = max((layer for layer in found.layers if layer.what_if), key=lambda layer: layer.noise_share)
    at_int8 = next(each for each in worst.what_if if each.precision == "int8")
    made = opened(target, "int4", rules=(LayerRule(pattern=worst.layer, weight_bits=8),))
    rig = rig_of(small_net, made, tmp_path)
    _, measured = noise(rig, samples_of(small_net), [])
    signal = float(np.square(run_experiments({"a": rig}, samples_of(small_net), []).answers[""]).sum())
    assert at_int8.likeness.snr_db == pytest.approx(snr_db(signal, measured), abs=2)
    assert at_int8.likeness.snr_db > found.estimated.snr_db


@pytest.mark.parametrize("target", FORMATS)
def test_calibration_of_another_scale_is_named_at_the_input(small_net, opened, tmp_path, target):
    found = diagnosed(small_net, opened, tmp_path, target, "int8", "narrow.npz")
    assert found.cause.kind == "ranges"
    assert found.cause.layers[0] == "image"
    image = found.layers[0]
    assert image.clipped > 0.8
    assert image.stored_high < image.high / 20


@pytest.mark.parametrize("target", FORMATS)
def test_sensitivity_tells_every_width_that_a_layer_can_have(small_net, opened, target):
    captured, feeds = small_net
    uniform = [Uniform(bits=bits, opened=opened(target, f"int{bits}")) for bits in (4, 8)]
    found = measure_here(captured=to_json(captured), uniform=to_json(uniform), feeds=str(feeds), limit=12)
    assert set(found.noise) == WEIGHTED
    assert found.samples == 12
    assert all(widths["4"] > widths["8"] for widths in found.noise.values())
    four, eight, in_float = (sum(widths[bits] for widths in found.noise.values()) for bits in ("4", "8", "32"))
    assert four > 8 * eight
    assert in_float < 1.5 * eight
