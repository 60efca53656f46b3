"""Load a PyTorch checkpoint into a module: weights only, every name accounted for."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.loading.file_kind import describe, file_kind
from edge_deploy.core.errors import BadInput
from edge_deploy.core.require import require

if TYPE_CHECKING:
    from torch import nn

__all__ = ["load_weights", "load_weights_and_scales"]

# Where training scripts put the state dict inside what they save.
CONTAINERS = ("state_dict", "model_state_dict", "model_state", "model", "net")
SHOWN = 8
# What quantized training and compression leave beside the weights.
TRAINED = (".weight_scale", ".weight_bits", ".hot_rows", ".hot_bits")


def load_weights(module: nn.Module, path: Path) -> tuple[str, ...]:
    """As `load_weights_and_scales`, without the scales."""
    return load_weights_and_scales(module, path)[0]


def load_weights_and_scales(module: nn.Module, path: Path) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Load the checkpoint strictly, and return notes on what was done to find the names, and trained scales.

    Names that end in `.weight_scale` and `.weight_bits` and are none of the module's are scales that training learned
    (see `converters.recommender.trained`).

    Accepts a state dict, one inside {"state_dict": ...} and the like, the prefix "module." of DataParallel, files of
    torch.save old and new, and safetensors. Pickles are read with weights_only=True: no code in them runs.

    Raises:
        BadInput: The file is damaged, holds more than weights, or does not fit the module; names what is missing,
            unexpected, or of another shape.
    """
    torch = require("torch", extra="export-tflite")
    notes = []
    state, container = _state_dict(_read(path), path, torch)
    if container:
        notes.append(f"weights taken from the entry {container!r} of {path.name}")
    own = module.state_dict()
    prefix = "module."
    if state and all(name.startswith(prefix) for name in state) and not any(name.startswith(prefix) for name in own):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
        notes.append("prefix 'module.' (DataParallel) removed from the names of the weights")
    scales = {name: state.pop(name) for name in list(state) if name.endswith(TRAINED) and name not in own}
    problems = _mismatches(path, state, own)
    if problems:
        raise BadInput(*problems)
    module.load_state_dict(state, strict=False)  # every name was accounted for above
    if scales:
        notes.append(f"scales that training learned for {sum(name.endswith(TRAINED[0]) for name in scales)} layers")
        hot = sum(len(rows) for name, rows in scales.items() if name.endswith(".hot_rows"))
        notes += [f"{hot} hot rows"] if hot else []
    return tuple(notes), {name: tensor.numpy() for name, tensor in scales.items()}


def _read(path: Path) -> Any:
    kind = file_kind(path)
    if kind in ("missing", "empty", "unreadable", "damaged-zip", "folder"):
        raise BadInput(f"--weights {path}: {describe(kind)}.")
    if kind in ("hdf5", "keras", "tflite", "pte", "onnx", "saved-model", "npz", "torchscript", "pt2"):
        raise BadInput(f"--weights {path}: {describe(kind)}; weights must be a PyTorch checkpoint or safetensors.")
    if path.suffix == ".safetensors":
        read = require("safetensors.torch", extra="export-tflite").load_file
    else:
        torch = require("torch", extra="export-tflite")
        read = functools.partial(torch.load, map_location="cpu", weights_only=True)
    try:
        return read(path)
    except pickle.UnpicklingError as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else "unreadable pickle"
        if "nsupported" in str(error) or "GLOBAL" in str(error):
            raise BadInput(
                f"--weights {path}: holds more than weights ({_blocked(error) or first}), which is not loaded "
                "because it could run code; save model.state_dict() alone."
            ) from error
        raise BadInput(f"--weights {path}: is truncated, damaged or no PyTorch checkpoint ({first}).") from error
    except Exception as error:
        # The readers of damaged files fail in whatever they happen to be doing: struct, assertions, indices.
        raise BadInput(f"--weights {path}: is truncated or damaged ({_first_line(error)}).") from error


def _state_dict(loaded: Any, path: Path, torch: Any) -> tuple[dict[str, Any], str]:
    def is_state(value: Any) -> bool:
        return isinstance(value, Mapping) and bool(value) and all(torch.is_tensor(item) for item in value.values())

    if is_state(loaded):
        return dict(loaded), ""
    if isinstance(loaded, Mapping):
        for name in CONTAINERS:
            if is_state(loaded.get(name)):
                return dict(loaded[name]), name
        found = ", ".join(map(repr, list(loaded)[:SHOWN])) or "nothing"
        raise BadInput(f"--weights {path}: holds {found}: must be a state dict, or have one under 'state_dict'.")
    raise BadInput(f"--weights {path}: holds a {type(loaded).__name__}: must be a state dict (model.state_dict()).")


def _mismatches(path: Path, state: dict[str, Any], own: Mapping[str, Any]) -> list[str]:
    # Checkpoints of before PyTorch 0.4.1 lack this counter, which only training reads.
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in own]
    shapes = [
        f"{name} is {list(state[name].shape)}, the module's {list(tensor.shape)}"
        for name, tensor in own.items()
        if name in state and state[name].shape != tensor.shape
    ]
    bad = [name for name, tensor in state.items() if tensor.is_floating_point() and not bool(tensor.isfinite().all())]
    problems = []
    for label, names in (
        ("has no weights for", missing),
        ("has weights that the module does not know", unexpected),
        ("has weights of another shape", shapes),
        ("has NaN or infinite values in", bad),
    ):
        if names:
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            problems.append(f"--weights {path}: {label}: {', '.join(names[:SHOWN])}{more}.")
    return problems


def _blocked(error: Exception) -> str:
    for line in str(error).splitlines():
        if "GLOBAL" in line:
            return line.strip()[:160]
    return ""


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
