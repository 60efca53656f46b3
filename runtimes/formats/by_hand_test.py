"""Small .tflite files written by hand with the schema's object interface, for the tests of this package."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert.schema_py_generated")
import flatbuffers
from ai_edge_litert import schema_py_generated as schema

TYPES = schema.TensorType
OPS = schema.BuiltinOperator


class ByHand:
    """A model under construction; `model` and `graph` may be changed at will before `bytes`."""

    def __init__(self) -> None:
        self.model = schema.ModelT()
        self.model.version = 3
        self.model.operatorCodes = []
        self.model.buffers = [schema.BufferT()]
        self.model.signatureDefs = []
        self.model.subgraphs = []
        self.subgraph("main")

    def subgraph(self, name: str) -> None:
        self.graph = schema.SubGraphT()
        self.graph.name = name.encode()
        self.graph.tensors, self.graph.operators, self.graph.inputs, self.graph.outputs = [], [], [], []
        self.model.subgraphs.append(self.graph)

    def tensor(
        self,
        name: str,
        shape: list[int],
        dtype: int = TYPES.FLOAT32,
        *,
        data: np.ndarray | bytes | None = None,
        buffer: int = 0,
        scale: Any = None,
        zero_point: Any = None,
        axis: int = 0,
        block: tuple[int, int] | None = None,
        dynamic: list[int] | None = None,
    ) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name.encode(), shape, dtype, buffer
        tensor.shapeSignature = dynamic
        if scale is not None or block is not None:
            quantization = schema.QuantizationParametersT()
            quantization.quantizedDimension = axis
            if scale is not None:
                quantization.scale = np.atleast_1d(np.asarray(scale, np.float32))
                points = np.zeros(len(quantization.scale)) if zero_point is None else np.atleast_1d(zero_point)
                quantization.zeroPoint = np.asarray(points, np.int64)
            if block is not None:
                details = schema.BlockwiseQuantizationT()
                details.scales, details.blockSize, details.zeroPoints = *block, -1
                quantization.details = details
                quantization.detailsType = schema.QuantizationDetails.BlockwiseQuantization
            tensor.quantization = quantization
        if data is not None:
            buffer_table = schema.BufferT()
            raw = data if isinstance(data, bytes) else np.ascontiguousarray(data).tobytes()
            buffer_table.data = np.frombuffer(raw, np.uint8)
            self.model.buffers.append(buffer_table)
            tensor.buffer = len(self.model.buffers) - 1
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def operator(self, code: int, inputs: list[int], outputs: list[int], options: Any = None, version: int = 1) -> Any:
        operator_code = schema.OperatorCodeT()
        operator_code.builtinCode, operator_code.version = code, version
        operator_code.deprecatedBuiltinCode = min(code, 127)
        self.model.operatorCodes.append(operator_code)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self.model.operatorCodes) - 1
        operator.inputs, operator.outputs = inputs, outputs
        if options is not None:
            operator.builtinOptions = options
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__[:-1])
        self.graph.operators.append(operator)
        return operator

    def signature(self, key: str, inputs: dict[str, int], outputs: dict[str, int]) -> None:
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = key.encode(), len(self.model.subgraphs) - 1
        signature.inputs, signature.outputs = _maps(inputs), _maps(outputs)
        self.model.signatureDefs.append(signature)
        self.graph.inputs, self.graph.outputs = list(inputs.values()), list(outputs.values())

    def bytes(self) -> bytes:
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    def write(self, path: Path) -> Path:
        path.write_bytes(self.bytes())
        return path


def _maps(entries: dict[str, int]) -> list[Any]:
    found = []
    for name, index in entries.items():
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name.encode(), index
        found.append(entry)
    return found


def look_up(rows: int = 100, columns: int = 16, **changes: Any) -> ByHand:
    """INT4 rows with a float16 scale each, and one look-up; `changes` go to the table's tensor."""
    hand = ByHand()
    ids, out = hand.tensor("ids", [1], TYPES.INT32), hand.tensor("embedding", [1, columns])
    scales = hand.tensor("scales", [rows, 1], TYPES.FLOAT16, data=np.linspace(0.5, 1, rows).astype(np.float16))
    nibbles = np.random.default_rng(0).integers(0, 256, rows * columns // 2, dtype=np.uint8)
    table = {"data": nibbles, "block": (scales, columns), **changes}
    hand.operator(
        OPS.EMBEDDING_LOOKUP, [ids, hand.tensor("table", [rows, columns], TYPES.INT4, **table)], [out], None, 4
    )
    hand.signature("serving_default", {"ids": ids}, {"embedding": out})
    return hand


def dense(batches: tuple[int, ...] = (1,), *, inputs: int = 4, outputs: int = 3) -> ByHand:
    """A float layer as one subgraph and signature a batch size, all sharing one buffer of weights."""
    hand = ByHand()
    weights = np.arange(outputs * inputs, dtype=np.float32).reshape(outputs, inputs)
    buffer = 0
    for number, batch in enumerate(batches):
        if number:
            hand.subgraph(f"batch_{batch}")
        data = {"buffer": buffer} if buffer else {"data": weights}
        kernel = hand.tensor("kernel", [outputs, inputs], **data)
        buffer = hand.graph.tensors[kernel].buffer
        b, a = hand.tensor("b_in", [batch, inputs]), hand.tensor("a_in", [batch, inputs])
        total, out = hand.tensor("total", [batch, inputs]), hand.tensor("out", [batch, outputs])
        hand.operator(OPS.SUB, [b, a], [total], schema.SubOptionsT())
        hand.operator(OPS.FULLY_CONNECTED, [total, kernel, -1], [out], schema.FullyConnectedOptionsT())
        key = f"batch_{batch}" if len(batches) > 1 else "serving_default"
        hand.signature(key, {"b": b, "a": a}, {"out": out})
    return hand


def small_cnn(*, filters: int = 4, channels: int = 3, size: int = 6, bits: int = 8) -> ByHand:
    """An INT8 net: convolution, depthwise, mean, dense, softmax; `bits` of the first convolution's weights."""
    hand, rng = ByHand(), np.random.default_rng(1)

    def weights(name: str, shape: list[int], axis: int, width: int) -> int:
        values = rng.integers(-7, 8, shape, dtype=np.int8)
        scale = np.full(shape[axis], 0.02, np.float32)
        if width == 8:
            return hand.tensor(name, shape, TYPES.INT8, data=values, scale=scale, axis=axis)
        low, high = values.ravel()[0::2] & 15, values.ravel()[1::2] & 15
        return hand.tensor(name, shape, TYPES.INT4, data=low | (high << 4), scale=scale, axis=axis)

    def value(name: str, shape: list[int], scale: float = 0.05, zero_point: int = 0) -> int:
        return hand.tensor(name, shape, TYPES.INT8, scale=scale, zero_point=zero_point)

    def bias(name: str, count: int) -> int:
        zeros = np.zeros(count, np.int32)
        return hand.tensor(name, [count], TYPES.INT32, data=zeros, scale=np.full(count, 0.001), axis=0)

    image = value("image", [1, size, size, channels])
    kernel = weights("conv/kernel", [filters, 3, 3, channels], 0, bits)
    conv = value("conv", [1, size, size, filters])
    options = schema.Conv2DOptionsT()
    options.strideH = options.strideW = 1
    hand.operator(OPS.CONV_2D, [image, kernel, bias("conv/bias", filters)], [conv], options, 3)
    kernel = weights("depthwise/kernel", [1, 3, 3, filters], 3, 8)
    depthwise = value("depthwise", [1, size, size, filters])
    options = schema.DepthwiseConv2DOptionsT()
    options.strideH = options.strideW = options.depthMultiplier = 1
    hand.operator(OPS.DEPTHWISE_CONV_2D, [conv, kernel, bias("depthwise/bias", filters)], [depthwise], options, 3)
    axes = hand.tensor("axes", [2], TYPES.INT32, data=np.array([1, 2], np.int32))
    mean = value("mean", [1, filters])
    hand.operator(OPS.MEAN, [depthwise, axes], [mean], schema.ReducerOptionsT(), 2)
    logits = value("logits", [1, 5])
    kernel = weights("dense/kernel", [5, filters], 0, 8)
    hand.operator(
        OPS.FULLY_CONNECTED, [mean, kernel, bias("dense/bias", 5)], [logits], schema.FullyConnectedOptionsT(), 5
    )
    options = schema.SoftmaxOptionsT()
    options.beta = 1.0
    probabilities = value("probabilities", [1, 5], 1 / 256, -128)
    hand.operator(OPS.SOFTMAX, [logits], [probabilities], options, 2)
    hand.signature("serving_default", {"image": image}, {"probabilities": probabilities})
    return hand


def offset_buffers(content: bytes) -> bytes:
    """The same model with all its constants behind the flatbuffer, as writers of large files place them."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(bytearray(content), 0))
    outside = []
    for number, buffer in enumerate(model.buffers):
        if buffer.data is not None and len(buffer.data):
            outside.append((number, bytes(buffer.data)))
            # Values other than the default make room in the table, which is filled in below.
            buffer.data, buffer.offset, buffer.size = None, 2, 2
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    result = bytearray(builder.Output())
    root = schema.Model.GetRootAs(result, 0)
    for number, data in outside:
        result += bytes(-len(result) % 16)
        set_buffer(root.Buffers(number), len(result), len(data), result)
        result += data
    return bytes(result)


def set_buffer(buffer: Any, offset: int, size: int, content: bytearray) -> None:
    """Patch the place of an offset buffer in the bytes of a file."""
    for slot, value in ((6, offset), (8, size)):
        at = buffer._tab.Pos + buffer._tab.Offset(slot)
        content[at : at + 8] = value.to_bytes(8, "little")


@pytest.mark.parametrize("hand", [look_up(), dense(), dense((1, 3)), small_cnn(), small_cnn(bits=4)])
def test_every_file_written_by_hand_runs(hand: ByHand) -> None:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=hand.bytes(), num_threads=1)
    interpreter.allocate_tensors()
    for detail in interpreter.get_input_details():
        interpreter.set_tensor(detail["index"], np.zeros(detail["shape"], detail["dtype"]))
    interpreter.invoke()
    assert all(np.isfinite(interpreter.get_tensor(d["index"])).all() for d in interpreter.get_output_details())
