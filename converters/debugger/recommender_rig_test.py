"""Tables and layers of a recommender, one by one: their errors, and what these do to the answer."""

import numpy as np
import pytest

from converters.contracts import Captured, LowerRequest
from converters.debugger.experiments import Experiment, run_experiments
from converters.debugger.recommender_rig import RecommenderRig
from converters.debugger.rigs import bits_of
from converters.recommender.model import Dense, Interaction, Lookup, Recommender, Table, save
from converters.recommender.reference import run_reference
from edge_deploy.core import registry
from edge_deploy.core.quant_spec import spec_for_recipe
from edge_deploy.core.tensor import TensorInfo, encode_input
from runtimes.backends import executorch
from runtimes.session import open_session

SAMPLES = 40


@pytest.fixture(scope="module")
def clicks():
    """A DLRM with a shared table, whose second table matters a hundred times more than the first; and samples."""
    rng = np.random.default_rng(0)
    arrays = {
        "a": rng.normal(0, 0.01, (50, 8)),
        "b": rng.normal(0, 1, (30, 8)),
        "w0": rng.normal(0, 0.4, (8, 5)),
        "w1": rng.normal(0, 0.2, (16, 32)),
        "w2": rng.normal(0, 0.3, (1, 16)),
        "c1": rng.normal(0, 0.1, 16),
    }
    model = Recommender(
        inputs=(
            TensorInfo(name="dense", shape=(-1, 5), dtype="float32"),
            TensorInfo(name="sparse", shape=(-1, 3), dtype="int64"),
        ),
        output=TensorInfo(name="score", shape=(-1, 1), dtype="float32", meaning="logit"),
        tables=(Table(name="small", rows=50, dim=8, weight="a"), Table(name="large", rows=30, dim=8, weight="b")),
        lookups=(
            Lookup(table=0, input="sparse", column=0),
            Lookup(table=1, input="sparse", column=1),
            Lookup(table=1, input="sparse", column=2),
        ),
        interaction=Interaction(kind="concat", top_inputs=("bottom", "lookup:0", "lookup:1", "lookup:2")),
        bottom=(Dense(name="bottom.0", weight="w0", in_features=5, out_features=8, activation="relu"),),
        top=(
            Dense(name="top.0", weight="w1", bias="c1", in_features=32, out_features=16, activation="relu"),
            Dense(name="top.1", weight="w2", in_features=16, out_features=1),
        ),
        dense_input="dense",
    )
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    samples = {
        "dense": rng.normal(size=(SAMPLES, 5)).astype(np.float32),
        "sparse": rng.integers(0, 30, (SAMPLES, 3)),
    }
    return model, arrays, samples


def rig(clicks, bits, target):
    model, arrays, _ = clicks
    return RecommenderRig(model, arrays, bits, table_scale="row", target=target, samples=16)


LAYERS = ("bottom.0", "small", "large", "top.0", "top.1")


def run(clicks, bits, *experiments, target="tflite"):
    found = run_experiments({"a": rig(clicks, bits, target)}, clicks[2], experiments)
    return found.answers, found.statistics["a"]


def test_without_errors_the_answer_is_the_reference(clicks):
    model, arrays, samples = clicks
    answers, _ = run(clicks, {})
    assert np.allclose(answers[""], run_reference(model, arrays, samples, batch=SAMPLES))


def test_float_layers_have_no_error_and_narrow_ones_less_than_narrower_ones(clicks):
    in_float = run(clicks, {})[1]
    eight = run(clicks, dict.fromkeys(LAYERS, 8))[1]
    four = run(clicks, dict.fromkeys(LAYERS, 4))[1]
    for layer in LAYERS:
        assert in_float[layer].own_noise == 0
        assert 0 < eight[layer].own_noise < four[layer].own_noise


def test_all_errors_together_are_those_of_the_quantized_model(clicks):
    bits = dict.fromkeys(LAYERS, 8)
    answers, statistics = run(clicks, bits, Experiment(name="all", choices=dict.fromkeys(LAYERS, "a")))
    noise = float(np.square(answers["all"] - answers[""]).sum())
    assert noise == pytest.approx(statistics["top.1"].noise, rel=0.5)


def test_the_table_with_large_rows_costs_more(clicks):
    single = [Experiment(name=layer, choices={layer: "a"}) for layer in ("small", "large")]
    answers, _ = run(clicks, dict.fromkeys(LAYERS, 4), *single)
    costs = {name: float(np.square(answers[name] - answers[""]).sum()) for name in ("small", "large")}
    assert costs["large"] > 100 * costs["small"] > 0


def answers_of(target, captured, model, samples, folder, spec):
    """What the artifact's runtime answers."""
    lowered = registry.load("converters.targets", target).lower(
        LowerRequest(captured=captured, spec=spec, folder=folder)
    )
    signature = lowered.signatures[0]
    if target == "tflite":
        session = open_session(folder / "model.tflite", trusted=True)
    else:
        session = executorch.open_session(folder / "model.pte", signature=signature, threads=1)
    known = {info.name: info for info in model.inputs}
    found = []
    for row in range(SAMPLES):
        feeds = {
            info.name: encode_input(samples[info.name][row : row + 1], source=known[info.name], target=info)
            for info in signature.inputs
        }
        found.append(session.run(feeds)[signature.outputs[0].name].reshape(1, -1))
    session.close()
    return np.concatenate(found), lowered.outcomes


@pytest.mark.slow
@pytest.mark.parametrize("mlp_bits", [8, 4])
@pytest.mark.parametrize("target", ["tflite", "executorch"])
def test_the_estimate_is_what_artifacts_of_both_formats_answer(clicks, target, mlp_bits, tmp_path):
    pytest.importorskip("executorch")
    model, arrays, samples = clicks
    save(model, arrays, tmp_path / "recommender")
    captured = Captured(
        name="clicks",
        framework="torch",
        kind="recommender",
        folder=tmp_path,
        inputs=model.inputs,
        outputs=(model.output,),
        recommender=tmp_path / "recommender",
    )
    (tmp_path / "made").mkdir()
    spec = spec_for_recipe("int4", mlp_bits=mlp_bits, fallback_bits=8)
    got, outcomes = answers_of(target, captured, model, samples, tmp_path / "made", spec)
    widths = bits_of(outcomes)
    assert {widths["small"], widths["large"]} == {4}
    together = Experiment(name="all", choices=dict.fromkeys(LAYERS, "a"))
    answers, _ = run(clicks, widths, together, target=target)
    measured, estimated = (float(np.square(each - answers[""]).sum()) for each in (got, answers["all"]))
    assert abs(10 * np.log10(estimated / measured)) < 2
