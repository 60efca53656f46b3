"""Read the configuration of a Keras file without Keras, and refuse what would run foreign code when loaded."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from converters.loading.file_kind import file_kind
from edge_deploy.core.errors import BadInput, Refusal, Unsupported
from edge_deploy.core.require import require

__all__ = ["check_safe", "layers_of_class", "read_config"]

# What a TFOpLambda layer of an old file may name. TensorFlow also exports functions that read and write files.
SAFE_TF_MODULES = frozenset({"__operators__", "bitwise", "image", "linalg", "math", "nn", "quantization", "signal"})
UNSAFE_TF_FUNCTIONS = frozenset({"load_library", "load_op_library", "numpy_function", "print", "py_function"})


def read_config(path: Path) -> dict[str, Any]:
    """The model's configuration as Keras wrote it.

    Raises:
        BadInput: The file is damaged, or holds weights without a model.
    """
    try:
        text = _config_of_archive(path) if file_kind(path) == "keras" else _config_of_hdf5(path)
        config = json.loads(text)
    except (OSError, KeyError, RuntimeError, ValueError, zipfile.BadZipFile) as error:
        raise BadInput(
            f"{path}: is truncated or damaged ({_first_line(error)}); copy it again from its origin."
        ) from error
    if not isinstance(config, dict):
        raise BadInput(f"{path}: its model configuration is no JSON object; the file is damaged.")
    return config


def _config_of_archive(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        return archive.read("config.json").decode("utf-8")


def _config_of_hdf5(path: Path) -> str:
    h5py = require("h5py", extra="export-tflite")
    with h5py.File(path, "r") as file:
        text = file.attrs.get("model_config")
        if text is None:
            held = "weights without a model" if "layer_names" in file.attrs else "no Keras model"
            raise BadInput(f"{path}: this HDF5 file holds {held}; save the whole model with model.save('NAME.keras').")
    return text.decode("utf-8") if isinstance(text, bytes) else str(text)


def check_safe(path: Path, config: dict[str, Any]) -> None:
    """Refuse layers that carry Python code, or name TensorFlow functions that do more than compute.

    Raises:
        Unsupported: With one refusal for each such layer.
    """
    refusals = []
    for node in _nodes(config):
        kind = node.get("class_name")
        inner = node.get("config")
        name = str(inner.get("name", kind)) if isinstance(inner, dict) else str(kind)
        if kind in ("Lambda", "__lambda__"):
            refusals.append(
                Refusal(
                    layer=name,
                    op=str(kind),
                    reason="carries Python code inside the file, which edge-deploy never runs",
                    remedy="replace it by a layer of Keras and save the model again",
                )
            )
        elif kind in ("TFOpLambda", "SlicingOpLambda") and isinstance(inner, dict):
            function = str(inner.get("function", ""))
            if not _is_safe_tf_function(function):
                refusals.append(
                    Refusal(layer=name, op=f"tf.{function}", reason="is not one of TensorFlow's computing functions")
                )
    if refusals:
        raise Unsupported(f"{path}: holds layers that cannot be loaded safely.", refusals=tuple(refusals))


def layers_of_class(config: dict[str, Any], name: str) -> tuple[str, ...]:
    """Names of the layers whose class has this name, with or without its registered package."""
    return tuple(
        str(node["config"].get("name", name))
        for node in _nodes(config)
        if str(node.get("class_name")).rpartition(">")[2] == name.rpartition(">")[2]
        and isinstance(node.get("config"), dict)
    )


def _is_safe_tf_function(function: str) -> bool:
    parts = function.removeprefix("compat.v1.").removeprefix("compat.v2.").split(".")
    if len(parts) == 1:
        return parts[0] not in UNSAFE_TF_FUNCTIONS
    return parts[0] in SAFE_TF_MODULES or parts[:2] == ["keras", "backend"]


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            if "class_name" in item:
                yield item
            if item.get("class_name") == "Lambda":
                continue  # what is inside is its code
            stack.extend(reversed(list(item.values())))
        elif isinstance(item, list):
            stack.extend(reversed(item))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
