import importlib.metadata

import pytest

from runtimes.formats.by_hand_test import dense, small_cnn
from runtimes.inspect import inspect
from runtimes.litert_profiler import TESTED_VERSIONS
from runtimes.placement import BY_RULE, OBSERVED, observed_placement

pytest.importorskip("ai_edge_litert")


def profiler_is_known():
    return importlib.metadata.version("ai-edge-litert") in TESTED_VERSIONS


def test_inspect_says_where_layers_run_and_how_it_knows(tmp_path):
    path = small_cnn().write(tmp_path / "cnn.tflite")
    report = inspect(path)
    assert report.placement == (OBSERVED if profiler_is_known() else BY_RULE)
    assert {layer.runs_on for layer in report.layers} <= {"XNNPACK", "builtin"}
    assert any(layer.runs_on == "XNNPACK" for layer in report.layers)


def test_without_a_trial_the_rules_speak(tmp_path):
    path = small_cnn().write(tmp_path / "cnn.tflite")
    assert inspect(path, trial="none").placement == BY_RULE


def test_every_signature_is_watched(tmp_path):
    if not profiler_is_known():
        pytest.skip("another runtime than those whose profiler is known")
    path = dense((1, 3)).write(tmp_path / "dense.tflite")
    seen = observed_placement(path)
    assert seen is not None
    assert {layer.layer for layer in inspect(path, trial="none").layers} <= set(seen)
