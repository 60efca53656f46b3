"""The answers of a reference kernel to all 256 values of eight bits: no port of its arithmetic can be closer."""

from __future__ import annotations

from typing import Any

import numpy as np

from converters.c.graph import Node
from converters.c.operators.refusal import refuse
from converters.tflite.flatbuffer import add_opcode, add_tensor, schema, set_affine
from edge_deploy.core.require import require

__all__ = ["unary_table"]


def unary_table(node: Node) -> np.ndarray:
    """[256] uint8: the output's byte for each byte of the input.

    Raises:
        Unsupported: The reference kernel refuses the operator.
    """
    x, out = node.inputs[0], node.outputs[0]
    assert x is not None
    values = np.arange(256, dtype=np.uint8)
    try:
        answer = _run(_one_operator(node), values.view(np.dtype(x.dtype)))
    except (RuntimeError, ValueError) as error:
        raise refuse(node, f"the reference kernel refuses it ({' '.join(str(error).split())[:200]})") from error
    found: np.ndarray = answer.astype(np.dtype(out.dtype)).reshape(-1).view(np.uint8)
    return found


def _one_operator(node: Node) -> bytes:
    """A file of this operator alone, over 256 values."""
    fb = schema()
    x, out = node.inputs[0], node.outputs[0]
    assert x is not None
    model = fb.ModelT()
    model.version, model.operatorCodes, model.buffers = 3, [], [fb.BufferT()]
    graph = fb.SubGraphT()
    graph.tensors, graph.operators = [], []
    indices = []
    for name, tensor in (("x", x), ("y", out)):
        index = add_tensor(graph, name, (1, 256), tensor.dtype)
        set_affine(graph.tensors[index], tensor.scale, tensor.zero_point)
        indices.append(index)
    operator = fb.OperatorT()
    operator.opcodeIndex = add_opcode(model, node.op, 2 if node.op in ("LOGISTIC", "TANH", "LEAKY_RELU") else 1)
    operator.inputs, operator.outputs = indices[:1], indices[1:]
    if node.options is not None:
        operator.builtinOptions = node.options
        operator.builtinOptionsType = getattr(fb.BuiltinOptions, type(node.options).__name__[:-1])
    graph.operators = [operator]
    graph.inputs, graph.outputs = indices[:1], indices[1:]
    model.subgraphs = [graph]
    builder = require("flatbuffers", extra="run-tflite").Builder(2048)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _run(data: bytes, values: np.ndarray) -> np.ndarray:
    litert: Any = require("ai_edge_litert.interpreter", extra="run-tflite")
    interpreter = litert.Interpreter(
        model_content=data, experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF, num_threads=1
    )
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], values.reshape(1, 256))
    interpreter.invoke()
    answer: np.ndarray = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return answer
