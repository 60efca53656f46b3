"""The contract of every target that the folder holds: a small network becomes what it is said to be."""

import inspect
import re
from pathlib import Path

import numpy as np
import pytest

from converters.capture import capture, run_float
from converters.contracts import CaptureRequest, LowerRequest, Target
from converters.lower import lower
from converters.support import entries, lookup
from converters.verify import check_outcomes
from edge_deploy.core import registry
from edge_deploy.core.digest import file_sha256
from edge_deploy.core.errors import BadInput, Unsupported
from edge_deploy.core.precision import width_word
from edge_deploy.core.quant_spec import RECIPES, spec_for_recipe
from edge_deploy.core.tensor import TensorInfo, dequantize_output, encode_input
from runtimes.formats.facts import read_facts
from runtimes.session import open_session

PACKAGE = "converters.targets"
FACTORY = """
import torch

def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
"""


@pytest.fixture(scope="module")
def captured(tmp_path_factory):
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("source")
    (folder / "contract_of_targets.py").write_text(FACTORY)
    found = capture(
        CaptureRequest(
            source="contract_of_targets:net",
            inputs=(TensorInfo(name="x", shape=(1, 6), dtype="float32"),),
            search_path=(str(folder),),
        ),
        folder / "captured",
    )
    samples = np.random.default_rng(0).standard_normal((64, 6)).astype(np.float32)
    np.savez(folder / "feeds.npz", x=samples)
    run_float(found, folder / "feeds.npz", folder / "answers.npz")
    return found, folder


@pytest.fixture(scope="module", params=registry.names(PACKAGE))
def name(request):
    return request.param


# What the linears of the contract's network are called by a target; TFLite's name otherwise.
LINEAR = {"executorch": "aten.linear"}
# Noise of the whole net over its signal: rounding of weights, and of activations where they are quantized.
MOST_NOISE = {"float32": 1e-5, "float16": 2e-3, "int4": 0.3, "int4-weight": 0.3}


@pytest.fixture(scope="module", params=RECIPES)
def written(request, name, captured, tmp_path_factory):
    found, data = captured
    support = lookup(name, request.param, LINEAR.get(name, "FULLY_CONNECTED"))
    if support.status == "refused":
        folder = tmp_path_factory.mktemp("refused")
        wanted = LowerRequest(
            captured=found, spec=spec_for_recipe(request.param), folder=folder, calibration=data / "feeds.npz"
        )
        with pytest.raises(Unsupported, match=re.escape(support.reason)):
            lower(name, wanted)
        assert not list(folder.iterdir()), "nothing is left of what was refused"
        pytest.skip(f"{name} refuses {request.param}, as its support table says")
    wanted = LowerRequest(
        captured=found,
        spec=spec_for_recipe(request.param),
        folder=tmp_path_factory.mktemp(name),
        calibration=data / "feeds.npz",
    )
    return wanted, lower(name, wanted)


def test_it_is_called_as_the_contract_says_and_named_after_its_format(name):
    module = registry.load(PACKAGE, name)
    assert list(inspect.signature(module.lower).parameters) == [
        parameter for parameter in inspect.signature(Target.lower).parameters if parameter != "self"
    ]
    assert name == module.FORMAT
    assert set(RECIPES) <= {entry.recipe for entry in entries(name)}


def test_every_file_is_listed_with_its_digest(written):
    request, lowered = written
    listed = {entry.path: entry for entry in lowered.files}
    assert {path.name for path in request.folder.iterdir()} == set(listed)
    assert [entry.role for entry in lowered.files].count("model") == 1
    for path, entry in listed.items():
        assert entry.sha256 == file_sha256(request.folder / path)
        assert entry.bytes == (request.folder / path).stat().st_size


def test_what_it_claims_stands_in_the_bytes(written):
    request, lowered = written
    facts = read_facts(request.folder / _model(lowered))
    check_outcomes(lowered.outcomes, facts)
    assert {outcome.layer for outcome in lowered.outcomes} == {fact.layer for fact in facts if fact.weight_count}
    assert len(lowered.outcomes) == 2
    for outcome in lowered.outcomes:
        assert outcome.asked.partition(",")[0] == width_word(request.spec.weight_bits) and outcome.is_as_asked
        assert outcome.weight_bits == request.spec.weight_bits


def test_what_is_widened_before_it_computes_is_called_stored(written, name):
    request, lowered = written
    status = lookup(name, request.spec.recipe, LINEAR.get(name, "FULLY_CONNECTED")).status
    for outcome in lowered.outcomes:
        assert ("stored" in outcome.got) == (status == "stored only"), outcome
        assert ("dynamic" in outcome.got) == (request.spec.activations == "dynamic"), outcome


def test_the_graph_and_the_signature_describe_the_file(written):
    _, lowered = written
    (signature,) = lowered.signatures
    assert [(info.name, info.shape) for info in signature.inputs] == [("x", (1, 6))]
    assert [info.shape for info in signature.outputs] == [(1, 3)]
    named = {layer.name for layer in lowered.graph.layers}
    assert {outcome.layer for outcome in lowered.outcomes} <= named
    assert lowered.toolchain and lowered.minimum_runtime


def test_its_runtime_computes_what_the_float_model_computes(written, captured):
    request, lowered = written
    session = open_session(request.folder / _model(lowered), trusted=True)
    (given,), (gotten,) = session.signature.inputs, session.signature.outputs
    with np.load(captured[1] / "feeds.npz") as feeds, np.load(captured[1] / "answers.npz") as answers:
        source = request.captured.inputs[0]
        rows = [encode_input(row[None], source=source, target=given) for row in feeds["x"]]
        outputs = [dequantize_output(session.run({given.name: row})[gotten.name], gotten) for row in rows]
        found = np.concatenate(outputs)
        (want,) = (answers[key] for key in answers.files)
    noise = np.sqrt(np.mean((found - want) ** 2)) / want.std()
    assert noise < MOST_NOISE.get(request.spec.recipe, 0.05)


def test_activations_are_not_quantized_without_samples(name, captured, tmp_path):
    request = LowerRequest(captured=captured[0], spec=spec_for_recipe("int8"), folder=tmp_path)
    with pytest.raises((BadInput, Unsupported), match="calibrat"):
        lower(name, request)
    assert list(tmp_path.iterdir()) == []


def _model(lowered) -> Path:
    return Path(next(entry.path for entry in lowered.files if entry.role == "model"))
