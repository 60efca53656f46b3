"""Load an ONNX file for conversion; a copy gets fixed shapes, folded constants, and bags without loops."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converters.passes.onnx_bags import rewrite_bags
from converters.passes.onnx_gelu import rewrite_gelus
from edge_deploy.core.errors import BadInput, Refusal, Unsupported
from edge_deploy.core.require import require
from edge_deploy.core.tensor import DType, Layout, TensorInfo

__all__ = ["OnnxModel", "open_onnx", "read_onnx", "write_prepared"]

OLDEST_FOR_BAGS = 13
RECURRENT = ("GRU", "LSTM", "RNN")
_TYPES: dict[str, DType] = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxModel:
    """What an ONNX file says of its borders.

    Attributes:
        inputs: Without the weights that old files list as inputs; -1 stands for a dynamic dimension, images are NCHW.
        output_names: In order.
    """

    inputs: tuple[TensorInfo, ...]
    output_names: tuple[str, ...]


def read_onnx(path: Path) -> OnnxModel:
    """Inputs and outputs of the file.

    Raises:
        BadInput: Damaged file, a type that is no tensor, or a weight that is NaN or infinite.
    """
    model = _load(path)
    _check_finite(path, model)
    session = open_onnx(path)
    problems, inputs = [], []
    for entry in session.get_inputs():
        shape = tuple(size if isinstance(size, int) else -1 for size in entry.shape)
        if entry.type not in _TYPES:
            problems.append(f"{path}: input {entry.name}: of type {entry.type}: must be a tensor of numbers.")
            continue
        layout: Layout | None = "NCHW" if len(shape) == 4 else None
        inputs.append(TensorInfo(name=entry.name, shape=shape, dtype=_TYPES[entry.type], layout=layout))
    if problems:
        raise BadInput(*problems)
    return OnnxModel(inputs=tuple(inputs), output_names=tuple(entry.name for entry in session.get_outputs()))


def write_prepared(path: Path, inputs: tuple[TensorInfo, ...], target: Path) -> None:
    """Write a copy of the model with fixed shapes, loops over bags as look-ups, GELUs, and constants folded.

    Raises:
        BadInput: The shapes do not fit the model.
        Unsupported: A loop that is no bag of embeddings, a recurrent layer, or an error function outside a GELU.
    """
    onnx = require("onnx", extra="from-onnx")
    model = _load(path)
    _refuse_recurrent(path, model)
    if any(node.op_type == "Loop" for node in model.graph.node) and _operator_set(model) < OLDEST_FOR_BAGS:
        model = require("onnx.version_converter", extra="from-onnx").convert_version(model, OLDEST_FOR_BAGS)
    sizes = {info.name: info.shape for info in inputs}
    for entry in model.graph.input:
        if entry.name in sizes:
            dimensions = entry.type.tensor_type.shape.dim
            for dimension, size in zip(dimensions, sizes[entry.name], strict=True):
                dimension.ClearField("dim_param")
                dimension.dim_value = size
    del model.graph.value_info[:]
    fixed = target.with_name("fixed.onnx")
    onnx.save(model, fixed)
    _fold(fixed, target, where=str(path))
    folded = onnx.load(target)
    if rewrite_bags(folded, where=str(path)):
        onnx.save(folded, fixed)
        _fold(fixed, target, where=str(path))
        folded = onnx.load(target)
    folded = rewrite_gelus(folded, where=str(path))
    _name_plainly(folded)
    onnx.save(folded, target)


def _refuse_recurrent(path: Path, model: Any) -> None:
    refusals = tuple(
        Refusal(
            layer=node.name or node.output[0],
            op=node.op_type,
            reason="a recurrent layer: only plain feed-forward graphs are converted",
        )
        for node in model.graph.node
        if node.op_type in RECURRENT
    )
    if refusals:
        raise Unsupported(f"{path}: is not a plain feed-forward model.", refusals=refusals)


def _name_plainly(model: Any) -> None:
    """Give nodes names that TensorFlow takes: it refuses a leading slash, which PyTorch's exporter writes."""
    taken: set[str] = set()
    for number, node in enumerate(model.graph.node):
        name = re.sub(r"[^A-Za-z0-9_.\\/>-]", "_", node.name).lstrip("/_\\>-") or f"{node.op_type}_{number}"
        node.name = name if name not in taken else f"{name}_{number}"
        taken.add(node.name)


def _fold(source: Path, target: Path, *, where: str) -> None:
    ort = require("onnxruntime", extra="from-onnx")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 4
    try:
        ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # whatever onnxruntime raises for shapes that contradict each other
        raise BadInput(f"{where}: does not run at the shapes asked for: {str(error)[:500]}") from error


def open_onnx(path: Path) -> Any:
    """An ONNX Runtime session of the file as it is.

    Raises:
        BadInput: onnxruntime cannot load it.
    """
    ort = require("onnxruntime", extra="from-onnx")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes, all derived from Exception
        raise BadInput(f"{path}: onnxruntime {ort.__version__} cannot load it: {str(error)[:500]}") from error


def _load(path: Path) -> Any:
    onnx = require("onnx", extra="from-onnx")
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except FileNotFoundError as error:
        raise BadInput(f"{path}: its external weights are missing ({error}); keep both files in one folder.") from error
    except Exception as error:  # protobuf's and the checker's own classes
        raise BadInput(f"{path}: is no sound ONNX model ({str(error)[:500]}); copy or export it again.") from error
    if not model.graph.node:
        raise BadInput(f"{path}: has no operators.")
    return model


def _operator_set(model: Any) -> int:
    return next(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def _check_finite(path: Path, model: Any) -> None:
    numpy_helper = require("onnx.numpy_helper", extra="from-onnx")
    problems = []
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            bad = int(values.size - np.isfinite(values).sum())
            problems.append(f"{path}: weight {weight.name}: {bad} of {values.size} values are NaN or infinite.")
    if problems:
        raise BadInput(*problems)
