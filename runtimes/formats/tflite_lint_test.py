from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from runtimes.formats.by_hand_test import (
    OPS,
    TYPES,
    ByHand,
    dense,
    look_up,
    offset_buffers,
    schema,
    set_buffer,
    small_cnn,
)
from runtimes.formats.tflite_file import read_tflite
from runtimes.formats.tflite_lint import file_warnings, lint


def problems(content: ByHand | bytes, folder: Path) -> str:
    path = folder / "model.tflite"
    path.write_bytes(content if isinstance(content, bytes) else content.bytes())
    return "\n".join(lint(path))


def changed(change: Callable[[ByHand], object], make: Callable[[], ByHand] = small_cnn) -> ByHand:
    hand = make()
    change(hand)
    return hand


def tensor(hand: ByHand, name: str) -> schema.TensorT:
    return next(tensor for tensor in hand.graph.tensors if tensor.name == name.encode())


@pytest.mark.parametrize("hand", [look_up(), dense(), dense((1, 3)), small_cnn(), small_cnn(bits=4)])
def test_sound_files_have_no_problems(hand: ByHand, tmp_path: Path) -> None:
    assert problems(hand, tmp_path) == ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"block": (9999, 16)}, "tensor 9999, which does not exist"),
        ({"block": (-5, 16)}, "tensor -5, which does not exist"),
        ({"block": (2, 0)}, "block size 0"),
        ({"block": (2, 32)}, "block size 32: must divide the 16 columns"),
        ({"block": (2, 4)}, "100 blockwise scales: must be 400"),
        ({"block": (0, 16)}, "blockwise scales are int32"),
        ({"data": bytes(790)}, "790 bytes of data, int4 .* needs 800"),
        ({"data": bytes(1600)}, "it was not packed"),
    ],
)
def test_a_damaged_table_is_named(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    import re

    found = problems(look_up(**changes), tmp_path)
    assert re.search(message, found), found
    assert "table" in found


def test_blockwise_scales_with_too_few_bytes_are_named(tmp_path: Path) -> None:
    hand = look_up()
    hand.model.buffers[tensor(hand, "scales").buffer].data = np.zeros(100, np.uint8)
    assert "blockwise scales have too few bytes" in problems(hand, tmp_path)


@pytest.mark.parametrize(("offset", "size"), [(2**64 - 64, 800), (10**9, 800), (64, 2**63)])
def test_an_offset_buffer_outside_the_file_is_named_also_when_its_end_wraps(
    offset: int, size: int, tmp_path: Path
) -> None:
    content = bytearray(offset_buffers(look_up().bytes()))
    root = schema.Model.GetRootAs(content, 0)
    number = next(i for i in range(root.BuffersLength()) if root.Buffers(i).Offset())
    set_buffer(root.Buffers(number), offset, size, content)
    assert f"buffer {number}: bytes {offset} to" in problems(bytes(content), tmp_path)


def test_an_external_part_that_was_cut_off_is_named(tmp_path: Path) -> None:
    assert "must lie within the file" in problems(offset_buffers(look_up().bytes())[:-100], tmp_path)


def test_offset_buffers_bring_a_warning_about_microcontrollers(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(offset_buffers(small_cnn().bytes()))
    assert "TFLite Micro ignores them silently" in file_warnings(read_tflite(path))[0]
    assert file_warnings(read_tflite(small_cnn().write(path))) == ()


def _sum(dtype: int) -> ByHand:
    hand = ByHand()
    x = hand.tensor("x", [1, 4], dtype, scale=0.1, zero_point=0)
    axes = hand.tensor("axes", [1], TYPES.INT32, data=np.array([1], np.int32))
    y = hand.tensor("y", [1], dtype, scale=0.1, zero_point=0)
    hand.operator(OPS.SUM, [x, axes], [y], schema.ReducerOptionsT(), 2)
    hand.signature("serving_default", {"x": x}, {"y": y})
    return hand


def _blockwise_dense() -> ByHand:
    hand = ByHand()
    x, y = hand.tensor("x", [1, 64]), hand.tensor("y", [1, 4])
    scales = hand.tensor("scales", [4, 2], TYPES.FLOAT16, data=np.ones((4, 2), np.float16))
    kernel = hand.tensor("kernel", [4, 64], TYPES.INT4, data=bytes(128), block=(scales, 32))
    hand.operator(OPS.FULLY_CONNECTED, [x, kernel, -1], [y], schema.FullyConnectedOptionsT(), 13)
    hand.signature("serving_default", {"x": x}, {"y": y})
    return hand


@pytest.mark.parametrize(
    ("hand", "named"),
    [(_sum(TYPES.INT8), "INT8 SUM"), (_blockwise_dense(), "blockwise FULLY_CONNECTED"), (_sum(TYPES.FLOAT32), "")],
)
def test_operators_that_the_reference_kernels_compute_wrongly_bring_a_warning(
    hand: ByHand, named: str, tmp_path: Path
) -> None:
    found = " ".join(file_warnings(read_tflite(hand.write(tmp_path / "model.tflite"))))
    assert (f"BUILTIN_REF) compute {named} wrongly" in found) if named else not found


def _drop_options(hand: ByHand) -> None:
    hand.graph.operators[0].builtinOptions, hand.graph.operators[0].builtinOptionsType = None, 0


def _wrong_opcode(hand: ByHand) -> None:
    code = hand.model.operatorCodes[0]
    code.builtinCode = code.deprecatedBuiltinCode = OPS.MAX_POOL_2D


CASES: dict[str, tuple[Callable[[ByHand], object], str]] = {
    "input index": (lambda h: h.graph.operators[0].inputs.__setitem__(1, 99), "conv (CONV_2D): input tensor 99"),
    "no input": (lambda h: h.graph.operators[0].inputs.__setitem__(0, -1), "has 0 of the 3 inputs"),
    "no bias": (lambda h: h.graph.operators[1].inputs.pop(), "depthwise (DEPTHWISE_CONV_2D): has 2 of the 3 inputs"),
    "output index": (lambda h: h.graph.operators[0].outputs.__setitem__(0, 99), "output tensor 99 does not exist"),
    "opcode index": (lambda h: setattr(h.graph.operators[0], "opcodeIndex", 77), "operator code 77 does not exist"),
    "wrong opcode": (_wrong_opcode, "has Conv2DOptions: must be Pool2DOptions"),
    "no options": (_drop_options, "has no Conv2DOptions"),
    "stride": (lambda h: setattr(h.graph.operators[0].builtinOptions, "strideH", 0), "StrideH = 0"),
    "order": (lambda h: h.graph.operators.reverse(), "before any operator makes it"),
    "made twice": (lambda h: h.graph.operators.append(h.graph.operators[0]), "which another operator has made"),
    "writes a constant": (lambda h: h.graph.operators[0].outputs.__setitem__(0, 1), "writes to constant tensor 1"),
    "writes the input": (lambda h: h.graph.operators[4].outputs.__setitem__(0, 0), "writes to the graph's input"),
    "graph input": (lambda h: setattr(h.graph, "inputs", [9999]), "graph input: tensor 9999"),
    "constant input": (lambda h: setattr(tensor(h, "image"), "buffer", 1), "graph input: tensor 0 is a constant"),
    "graph output": (lambda h: setattr(h.graph, "outputs", [-1]), "graph output: tensor -1"),
    "nothing makes it": (lambda h: h.graph.operators.pop(), "no operator makes tensor"),
    "signature": (lambda h: setattr(h.model.signatureDefs[0], "subgraphIndex", 4), "subgraph 4 does not exist"),
    "signature tensor": (
        lambda h: setattr(h.model.signatureDefs[0].inputs[0], "tensorIndex", 3),
        "which is no input of its subgraph",
    ),
    "buffer": (lambda h: setattr(tensor(h, "conv"), "buffer", 99), "tensor conv: buffer 99 does not exist"),
    "type": (lambda h: setattr(tensor(h, "conv"), "type", 77), "unknown to this schema"),
    "shape": (lambda h: setattr(tensor(h, "conv/kernel"), "shape", [4, 3, 3, 1000]), "needs 36000"),
    "negative": (lambda h: setattr(tensor(h, "conv"), "shape", [1, -7, 6, 4]), "sizes must not be negative"),
    "huge": (lambda h: setattr(tensor(h, "conv"), "shape", [65536, 65536, 65536, 3]), "no device holds that"),
    "rank": (lambda h: setattr(tensor(h, "conv/kernel"), "shape", [4, 27]), "must have 4"),
    "scale": (lambda h: tensor(h, "conv").quantization.scale.__setitem__(0, np.nan), "scale nan"),
    "zero scale": (lambda h: tensor(h, "conv").quantization.scale.__setitem__(0, 0), "must be finite and positive"),
    "zero point": (lambda h: tensor(h, "conv").quantization.zeroPoint.__setitem__(0, 300), "zero point 300"),
    "axis": (
        lambda h: setattr(tensor(h, "conv/kernel").quantization, "quantizedDimension", 9),
        "quantized dimension 9",
    ),
    "scales": (
        lambda h: setattr(tensor(h, "conv/kernel").quantization, "quantizedDimension", 1),
        "4 scales along dimension 1 of size 3",
    ),
    "points": (
        lambda h: setattr(tensor(h, "conv").quantization, "zeroPoint", np.zeros(3, np.int64)),
        "1 scales, 3 zero points",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_wrong_content_is_named(name: str, tmp_path: Path) -> None:
    change, message = CASES[name]
    found = problems(changed(change), tmp_path)
    assert message in found, found


def test_many_problems_are_cut_short(tmp_path: Path) -> None:
    hand = dense(tuple(range(1, 40)))
    for graph in hand.model.subgraphs:
        graph.outputs = [999]
    assert problems(hand, tmp_path).splitlines()[-1].startswith("and ")


def test_a_further_subgraph_may_have_no_output(tmp_path: Path) -> None:
    hand = dense()
    hand.subgraph("initialise")
    assert problems(hand, tmp_path) == ""
    hand.model.subgraphs[0].outputs = []
    assert "the graph has no output" in problems(hand, tmp_path)


def test_a_dynamic_batch_is_sound(tmp_path: Path) -> None:
    hand = ByHand()
    # A value of unknown shape, as converters write for dynamic batches.
    x = hand.tensor("x", [1, 4], TYPES.FLOAT32, dynamic=[-1, 4])
    y = hand.tensor("y", [1, 2], dynamic=[-1, 2])
    kernel = hand.tensor("kernel", [2, 4], data=np.ones((2, 4), np.float32))
    hand.operator(OPS.FULLY_CONNECTED, [x, kernel, -1], [y], schema.FullyConnectedOptionsT())
    hand.signature("serving_default", {"x": x}, {"y": y})
    assert problems(hand, tmp_path) == ""
