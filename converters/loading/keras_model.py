"""Load a Keras model in safe mode: by Keras 3, and by tf_keras where Keras 3 refuses an old file."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from converters.loading.file_kind import file_kind
from converters.loading.keras_file import check_safe, layers_of_class, read_config
from edge_deploy.core.errors import BadInput, EdgeDeployError, Refusal, ToolchainError, Unsupported
from edge_deploy.core.require import require
from edge_deploy.core.tensor import DType, TensorInfo

__all__ = ["KerasLoader", "LoadedKeras", "dtype_name", "load_keras"]

KerasLoader: TypeAlias = Literal["keras", "tf_keras"]
UNKNOWN_CLASS = re.compile(r"(?:Unknown layer:? '?|Could not locate (?:class|function) ')([\w>]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedKeras:
    """A Keras model in memory with what its callers need to know of it.

    Attributes:
        inputs: As the model declares them, in call order; -1 stands for a dynamic dimension.
        output_names: One for each output, unique.
        notes: What the user should know of the loading.
    """

    model: Any
    loader: KerasLoader
    inputs: tuple[TensorInfo, ...]
    output_names: tuple[str, ...]
    notes: tuple[str, ...]

    def call(self, arrays: list[Any]) -> list[Any]:
        """The outputs for inputs in call order, in inference mode."""
        feed: Any = arrays[0] if len(arrays) == 1 else arrays
        # The structure of the inputs as Keras 3 and tf_keras keep it; a model may want them by name.
        if any(isinstance(getattr(self.model, name, None), dict) for name in ("_inputs_struct", "_nested_inputs")):
            feed = {info.name: array for info, array in zip(self.inputs, arrays, strict=True)}
        tree = require("tensorflow", extra="export-tflite").nest
        return list(tree.flatten(self.model(feed, training=False)))

    @property
    def variables(self) -> tuple[Any, ...]:
        """The TensorFlow variables of all weights; Keras 3 hides them inside its own."""
        return tuple(getattr(variable, "_value", variable) for variable in self.model.variables)

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names of all layers."""
        return tuple(layer.name for layer in self.layers())

    def layers(self) -> Iterator[Any]:
        """All layers, also those inside nested models."""
        stack = list(reversed(self.model.layers))
        while stack:
            layer = stack.pop()
            yield layer
            stack.extend(reversed(getattr(layer, "layers", ())))


def dtype_name(tensor: Any) -> DType:
    """The dtype of a symbolic tensor of either Keras."""
    name: DType = np.dtype(getattr(tensor.dtype, "as_numpy_dtype", tensor.dtype)).name
    return name


def load_keras(path: Path) -> LoadedKeras:
    """Load a `.keras` or `.h5` file; custom classes, Lambda layers and pickles are never loaded.

    Raises:
        BadInput: The file is damaged, or a weight is NaN or infinite.
        Unsupported: A layer carries code, or is of a class that Keras does not have.
        ToolchainError: Neither Keras can make the model, with both reasons.
    """
    config = read_config(path)
    check_safe(path, config)
    reasons: dict[str, Exception] = {}
    for loader in ("keras", "tf_keras"):
        if loader == "tf_keras" and file_kind(path) == "keras" and _written_by_keras_3(config):
            break
        keras = require(loader, extra="export-tflite")
        try:
            model = keras.models.load_model(str(path), compile=False, safe_mode=True)
        except Exception as error:  # noqa: BLE001  # Keras raises whatever its layers raise; every reason is reported below
            reasons[loader] = error
            continue
        _check_finite(path, model)
        return _describe(path, model, loader, keras.__version__, reasons.get("keras"))
    raise _refusal(path, config, reasons)


def _written_by_keras_3(config: dict[str, Any]) -> bool:
    return str(config.get("module", "")).startswith("keras.src") or "registered_name" in config


def _describe(path: Path, model: Any, loader: str, version: str, refused: Exception | None) -> LoadedKeras:
    tensors = getattr(model, "inputs", None)
    if not tensors:
        raise Unsupported(
            f"{path}: the model does not say what its inputs are; build it on an Input layer and save it again."
        )
    names = list(model.input_names) if loader == "tf_keras" else [tensor.name for tensor in tensors]
    inputs = tuple(
        TensorInfo(
            name=name,
            shape=tuple(-1 if size is None else int(size) for size in tensor.shape),
            dtype=dtype_name(tensor),
        )
        for name, tensor in zip(names, tensors, strict=True)
    )
    notes = [f"loaded by {loader} {version}"]
    if refused is not None:
        notes[0] += f", because Keras 3 refuses the file: {_reason(refused)}"
    return LoadedKeras(
        model=model,
        loader=loader,  # type: ignore[arg-type]  # one of the two literals of the loop
        inputs=inputs,
        output_names=_unique(_output_names(model)),
        notes=tuple(notes),
    )


def _output_names(model: Any) -> list[str]:
    names = getattr(model, "output_names", None)
    if names:
        return [str(name) for name in names]
    if len(model.outputs) == 1:  # a Sequential model of Keras 3 has no output_names
        return [str(model.layers[-1].name)]
    return [f"output_{index}" for index in range(len(model.outputs))]


def _unique(names: list[str]) -> tuple[str, ...]:
    seen: dict[str, int] = {}
    result = []
    for name in names:
        count = seen.get(name, 0)
        seen[name] = count + 1
        result.append(f"{name}_{count}" if count else name)
    return tuple(result)


def _check_finite(path: Path, model: Any) -> None:
    problems = []
    for weight in model.weights:
        array = np.asarray(weight)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            name = getattr(weight, "path", weight.name)
            bad = int(array.size - np.isfinite(array).sum())
            problems.append(
                f"{path}: weight {name}: {bad} of {array.size} values are NaN or infinite; train or save it again."
            )
    if problems:
        raise BadInput(*problems)


def _refusal(path: Path, config: dict[str, Any], reasons: dict[str, Exception]) -> EdgeDeployError:
    told = "; ".join(f"{loader}: {_reason(error)}" for loader, error in reasons.items())
    custom = {name for error in reasons.values() for name in UNKNOWN_CLASS.findall(str(error))} - {"TFOpLambda"}
    if custom:
        refusals = tuple(
            Refusal(
                layer=layer, op=name, reason="custom class", remedy="rebuild it from layers of Keras and save again"
            )
            for name in sorted(custom)
            for layer in layers_of_class(config, name) or (name,)
        )
        return Unsupported(
            f"{path}: needs a class that Keras does not have; code beside the model file is never loaded.",
            refusals=refusals,
        )
    damaged = (OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error)
    if any(isinstance(error, damaged) for error in reasons.values()):
        return BadInput(f"{path}: is truncated or damaged ({told}); copy it again from its origin.")
    version = config.get("keras_version") or "unknown"
    return ToolchainError(f"{path}: neither Keras 3 nor tf_keras can load it (written by Keras {version}). {told}.")


def _reason(error: Exception) -> str:
    """The part of a Keras message that says what is wrong; the rest is pages of configuration."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    told = lines[0] if lines else type(error).__name__
    for line in lines:
        if "Exception encountered:" in line or line.startswith("Unrecognized keyword"):
            told = line.split("Exception encountered:")[-1].strip()
            break
    return told.split(". ")[0][:300]  # what follows is advice for the authors of custom classes
