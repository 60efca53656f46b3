import numpy as np
import pytest

from edge_deploy.core.errors import BadInput, ToolchainError
from runtimes.formats.by_hand_test import OPS, TYPES, ByHand, dense
from runtimes.gpu_compatibility import gpu_compatibility, read_analysis
from runtimes.inspect import inspect

pytest.importorskip("ai_edge_litert")

TEXT = """
Subgraph#0 main(T#0) -> [T#2]
  Op#0 CONV_2D(T#0, T#3) -> [T#1]
  Op#1 SHAPE(T#1) -> [T#2]
GPU COMPATIBILITY WARNING: Not supported op SHAPE
Subgraph#1 other(T#0) -> [T#1]
  Op#0 GATHER(T#0, T#3) -> [T#1]
GPU COMPATIBILITY WARNING: Only constant indices.
GPU COMPATIBILITY WARNING: Subgraph#0 has GPU delegate compatibility issues at nodes 1 on TFLite runtime version 2.9.1
"""


def test_refused_operators_are_named_by_layer_and_subgraph():
    found = read_analysis(TEXT, [[("conv", "CONV_2D"), ("shape", "SHAPE")], [("rows", "GATHER")]])
    assert [(each.layer, each.op, each.reason) for each in found.refusals] == [
        ("shape", "SHAPE", "Not supported op SHAPE"),
        ("rows", "GATHER", "Only constant indices"),
    ]
    assert found.runtime == "2.9.1" and not found.is_compatible


def test_an_analysis_without_a_verdict_is_not_taken_for_consent():
    with pytest.raises(ToolchainError, match="no verdict"):
        read_analysis("Subgraph#0 main(T#0) -> [T#1]\n", [[]])


def test_the_delegate_takes_a_dense_layer(tmp_path):
    path = dense().write(tmp_path / "dense.tflite")
    found = gpu_compatibility(path)
    assert found.is_compatible and found.runtime


def without_a_gpu_kernel(path):
    """A file of ours whose only operator is one that no GPU delegate has."""
    hand = ByHand()
    scores, count = hand.tensor("scores", [1, 8]), hand.tensor("k", [], TYPES.INT32, data=np.array(3, np.int32))
    values, places = hand.tensor("values", [1, 3]), hand.tensor("places", [1, 3], TYPES.INT32)
    hand.operator(OPS.TOPK_V2, [scores, count], [values, places])
    hand.graph.inputs, hand.graph.outputs = [scores], [values]
    return hand.write(path)


def test_an_operator_that_the_delegate_does_not_have_is_named_even_where_the_analysis_passes_everything(tmp_path):
    report = inspect(without_a_gpu_kernel(tmp_path / "top.tflite"), gpu=True, trial="none")
    assert report.gpu is not None and not report.gpu.is_compatible
    assert [(refusal.layer, refusal.op) for refusal in report.gpu.refusals] == [("values", "TOPK_V2")]
    assert report.gpu.basis


def test_only_tflite_files_are_analysed(tmp_path):
    with pytest.raises(BadInput):
        inspect(tmp_path / "model.pte", gpu=True)
