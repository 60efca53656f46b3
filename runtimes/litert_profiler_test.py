from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtimes.calling import zeros_for
from runtimes.formats.by_hand_test import OPS, TYPES, ByHand, dense, look_up, schema, small_cnn
from runtimes.formats.tflite import read_facts
from runtimes.litert_profiler import TESTED_VERSIONS, observed_kernels
from runtimes.session import open_session
from runtimes.xnnpack_events import assign_events


@pytest.fixture(scope="module", autouse=True)
def known_version() -> None:
    import importlib.metadata

    if importlib.metadata.version("ai-edge-litert") not in TESTED_VERSIONS:
        pytest.skip("this version's profiler is not known")


def observed(hand: ByHand, folder: Path) -> dict[str, str]:
    path = hand.write(folder / "m.tflite")
    session = open_session(path, trusted=True)
    inputs = zeros_for(session.signature)
    seen = observed_kernels(path, inputs, signature=session.signature.name, subgraph=0)
    assert seen is not None
    return seen


def every_operator() -> ByHand:
    """Many operators on one image, INT8 and float, each with its own output."""
    hand, outputs = ByHand(), {}
    images = {
        "int8": hand.tensor("image8", [1, 4, 4, 4], TYPES.INT8, scale=0.05, zero_point=0),
        "float32": hand.tensor("image32", [1, 4, 4, 4]),
    }

    def add(
        name: str, code: int, options: Any, shape: list[int], constants: tuple[Any, ...] = (), copies: int = 1
    ) -> None:
        for kind, image in images.items():
            quantized = {"scale": 0.05, "zero_point": 0} if kind == "int8" else {}
            out = hand.tensor(f"{name}_{kind}", shape, TYPES.INT8 if quantized else TYPES.FLOAT32, **quantized)
            extra = [
                hand.tensor(f"{name}_{kind}_{i}", list(np.shape(value)), TYPES.INT32, data=np.asarray(value, np.int32))
                for i, value in enumerate(constants)
            ]
            oldest = name == "EXPAND_DIMS" or (options is None and not constants and copies == 1)
            hand.operator(code, [image] * copies + extra, [out], options, 1 if oldest else 2)
            outputs[f"{name}_{kind}"] = out

    def with_fields(options: Any, **fields: Any) -> Any:
        for field, value in fields.items():
            setattr(options, field, value)
        return options

    same = [1, 4, 4, 4]
    for name in ("LOGISTIC", "TANH", "HARD_SWISH", "GELU", "RELU6", "ABS", "ELU", "EXP"):
        add(name, getattr(OPS, name), None, same)
    for name in ("MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE"):
        add(name, getattr(OPS, name), None, same, copies=2)
    add("ADD", OPS.ADD, schema.AddOptionsT(), same, copies=2)
    add("MUL", OPS.MUL, schema.MulOptionsT(), same, copies=2)
    keep = with_fields(schema.ReducerOptionsT(), keepDims=True)
    for name in ("MEAN", "SUM", "REDUCE_MAX"):
        add(name, getattr(OPS, name), keep, [1, 1, 1, 4], ([1, 2],))
    add("PAD", OPS.PAD, None, [1, 6, 6, 4], ([[0, 0], [1, 1], [1, 1], [0, 0]],))
    add("TRANSPOSE", OPS.TRANSPOSE, None, same, ([0, 3, 1, 2],))
    add("EXPAND_DIMS", OPS.EXPAND_DIMS, None, [1, 1, 4, 4, 4], ([0],))
    for count in (5, 6):
        joined = with_fields(schema.ConcatenationOptionsT(), axis=3)
        add(f"CONCATENATION{count}", OPS.CONCATENATION, joined, [1, 4, 4, 4 * count], copies=count)
    for size, stride in ((2, 2), (1, 2)):
        pool = with_fields(schema.Pool2DOptionsT(), filterHeight=size, filterWidth=size, strideH=stride, strideW=stride)
        add(f"MAX_POOL{size}", OPS.MAX_POOL_2D, pool, [1, 2, 2, 4])
        add(f"AVERAGE_POOL{size}", OPS.AVERAGE_POOL_2D, pool, [1, 2, 2, 4])
    hand.signature("serving_default", images, outputs)
    return hand


def dense_int4(columns: int) -> ByHand:
    hand = ByHand()
    x = hand.tensor("x", [1, columns], TYPES.INT8, scale=0.05, zero_point=0)
    y = hand.tensor("y", [1, 6], TYPES.INT8, scale=0.05, zero_point=0)
    packed = np.full(6 * columns // 2, 0x11, np.uint8)
    kernel = hand.tensor("kernel", [6, columns], TYPES.INT4, data=packed, scale=np.full(6, 0.1))
    bias = hand.tensor("bias", [6], TYPES.INT32, data=np.zeros(6, np.int32), scale=np.full(6, 0.005))
    hand.operator(OPS.FULLY_CONNECTED, [x, kernel, bias], [y], schema.FullyConnectedOptionsT(), 12)
    hand.signature("serving_default", {"x": x}, {"y": y})
    return hand


@pytest.mark.parametrize(
    "hand",
    [every_operator(), small_cnn(), small_cnn(bits=4), look_up(), dense(), dense_int4(8), dense_int4(7)],
    ids=["operators", "cnn", "int4 cnn", "look-up", "dense", "even int4", "odd int4"],
)
def test_the_kernels_that_facts_name_are_those_that_the_profiler_sees(hand: ByHand, tmp_path: Path) -> None:
    seen = observed(hand, tmp_path)
    assert {fact.layer: fact.runs_on for fact in read_facts(tmp_path / "m.tflite")} == seen


@pytest.mark.parametrize("kernels", ["default", "builtin"])
def test_every_layer_has_a_time_under_its_name(tmp_path: Path, kernels: str) -> None:
    path = small_cnn(filters=32, size=64).write(tmp_path / "m.tflite")
    session = open_session(path, trusted=True, kernels=kernels)
    seconds = session.layer_seconds(zeros_for(session.signature), runs=5)
    assert seconds is not None
    assert list(seconds) == [fact.layer for fact in read_facts(path)]
    assert all(value >= 0 for value in seconds.values())
    assert seconds["conv"] > 0 and seconds["depthwise"] > 0


def test_each_signature_is_profiled_with_its_own_inputs(tmp_path: Path) -> None:
    path = dense((1, 64), inputs=64, outputs=64).write(tmp_path / "m.tflite")
    session = open_session(path, signature="batch_64", trusted=True)
    assert set(session.layer_seconds(zeros_for(session.signature), runs=2) or ()) == {"total", "out"}


def test_the_reference_kernels_have_no_profiler(tmp_path: Path) -> None:
    session = open_session(dense().write(tmp_path / "m.tflite"), trusted=True, kernels="reference")
    assert session.layer_seconds(zeros_for(session.signature), runs=1) is None


def test_events_find_their_operators_through_fusion_and_rewriting() -> None:
    events = [
        "Convolution (NHWC, QC8) IGEMM",
        "Constant Pad (ND, X8)",
        "Max Pooling (NHWC, S8)",
        "Fully Connected (NC, QS8, QC8W) GEMM",
        "Add (ND)",
        "Clamp (NC)",
        "Convert (NC, F32, QD8)",
        "Fully Connected (NC, QD8, F32) GEMM",
    ]
    operators = ["PAD", "CONV_2D", "PAD", "MAX_POOL_2D", "CONV_2D", "ADD", "RESHAPE", "FULLY_CONNECTED"]
    assert assign_events(events, operators) == (1, 2, 3, 4, 5, 5, 7, 7)


def test_events_without_any_counterpart_stay_unassigned() -> None:
    assert assign_events(["Something New"], ["CONV_2D"]) == (None,)
    assert assign_events([], []) == ()
