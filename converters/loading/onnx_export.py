"""A prepared ONNX file as a float TFLite file by onnx2tf, and the proof that both compute the same."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from converters.loading.onnx_model import open_onnx
from converters.loading.tensorflow_export import SINGLE_SIGNATURE
from converters.loading.tflite_facts import check_plain
from converters.tflite.flatbuffer import read_model, write_model
from converters.tflite.readable_names import rename_layers
from converters.tflite.signatures import ensure_signatures
from edge_deploy.core.errors import Refusal, ToolchainError, Unsupported
from edge_deploy.core.require import require
from edge_deploy.core.tensor import TensorInfo

__all__ = ["export_onnx"]

# onnx2tf fetches test images for its own trial run unless a file of this name lies in the current folder.
TRIAL_IMAGES = "calibration_image_sample_data_20x128x128x3_float32.npy"
AGREES_WITHIN = 1e-3


def export_onnx(prepared: Path, inputs: tuple[TensorInfo, ...], outputs: tuple[str, ...], path: Path) -> None:
    """Write the float TFLite file; images in it are NHWC, other tensors keep their axes.

    Raises:
        Unsupported: An operator that onnx2tf does not know, by name.
        ToolchainError: onnx2tf failed otherwise, or its file computes something else than the ONNX model.
    """
    onnx2tf = require("onnx2tf", extra="from-onnx")
    keep = [info.name for info in inputs if len(info.shape) in (3, 5)]
    here = Path.cwd()
    with tempfile.TemporaryDirectory(dir=path.parent) as name:
        folder = Path(name)
        copy = folder / "model.onnx"
        shutil.copyfile(prepared, copy)
        np.save(folder / TRIAL_IMAGES, np.random.default_rng(0).random((20, 128, 128, 3), dtype=np.float32))
        said = io.StringIO()
        os.chdir(folder)  # onnx2tf looks for its trial images there; this is a child process of its own
        try:
            with contextlib.redirect_stdout(said):
                onnx2tf.convert(
                    input_onnx_file_path=str(copy),
                    output_folder_path=str(folder / "out"),
                    copy_onnx_input_output_names_to_tflite=True,
                    keep_ncw_or_nchw_or_ncdhw_input_names=keep or None,
                    not_use_onnxsim=True,
                    non_verbose=True,
                )
        except (Exception, SystemExit) as error:  # onnx2tf ends the process for what it does not know
            raise _refusal(error, said.getvalue()) from error
        finally:
            os.chdir(here)
        made = folder / "out/model_float32.tflite"
        if not made.exists():
            raise ToolchainError("onnx2tf wrote no float32 file.")
        model = read_model(made)
        model.signatureDefs = []
        ensure_signatures(model)
        _name_borders(model, [info.name for info in inputs], outputs)
        write_model(model, path)
    rename_layers(path)
    check_plain(path, where="the ONNX model")
    _prove(prepared, inputs, path)


def _name_borders(model: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Give the signature the ONNX names and order; onnx2tf replaces characters in names and may swap inputs."""
    definition = model.signatureDefs[0]
    for entries, names in ((definition.inputs, inputs), (definition.outputs, outputs)):
        plain = {_plain(name): name for name in names}
        found = [plain.get(_plain(entry.name.decode().removeprefix(f"{SINGLE_SIGNATURE}_"))) for entry in entries]
        if len(entries) != len(names) or (None in found and len(names) > 1):
            raise ToolchainError(
                f"onnx2tf: wrote {', '.join(entry.name.decode() for entry in entries)} where the model has "
                f"{', '.join(names)}."
            )
        for entry, name in zip(entries, found, strict=True):
            entry.name = (name or names[0]).encode()
    graph = model.subgraphs[definition.subgraphIndex]
    places = [
        {entry.name.decode(): int(entry.tensorIndex) for entry in entries}
        for entries in (definition.inputs, definition.outputs)
    ]
    graph.inputs = [places[0][name] for name in inputs]
    graph.outputs = [places[1][name] for name in outputs]


def _plain(name: str) -> str:
    return re.sub(r"\W", "_", re.sub(r":\d+$", "", name))


def _prove(prepared: Path, inputs: tuple[TensorInfo, ...], path: Path) -> None:
    """Compare both files on one random sample.

    Raises:
        ToolchainError: They differ.
    """
    from runtimes.session import open_session

    rng = np.random.default_rng(0)
    feeds = {
        info.name: rng.random(info.shape).astype(info.dtype)
        if info.dtype.startswith("float")
        else np.zeros(info.shape, info.dtype)
        for info in inputs
    }
    session = open_onnx(prepared)
    names = [entry.name for entry in session.get_outputs()]
    wanted = dict(zip(names, session.run(names, feeds), strict=True))
    made = open_session(path, kernels="builtin", trusted=True)
    given = {info.name: _as_file(feeds[info.name], info.shape, info.dtype) for info in made.signature.inputs}
    for name, value in made.run(given).items():
        want = _as_file(wanted[name], value.shape, str(value.dtype))
        error = np.abs(value - want).max() if value.shape == want.shape else np.inf
        if not error <= AGREES_WITHIN * max(1.0, float(np.abs(want).max())):
            raise ToolchainError(
                f"onnx2tf converted the model wrongly: output {name} {value.shape} differs from the ONNX model's "
                f"{wanted[name].shape} by {error:.3g}."
            )


def _as_file(array: np.ndarray, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """An ONNX tensor as the file has it: images NHWC."""
    if array.ndim == 4 and array.shape != shape:
        array = array.transpose(0, 2, 3, 1)
    return array.astype(dtype)


def _refusal(error: BaseException, said: str) -> Unsupported | ToolchainError:
    """What onnx2tf raised, with the errors that it printed, which name the layer."""
    missing = re.findall(r"onnx2tf\.ops\.(\w+)", str(error))
    if missing:
        refusals = tuple(Refusal(layer=name, op=name, reason="onnx2tf does not know this operator") for name in missing)
        return Unsupported("The ONNX model cannot become TFLite.", refusals=refusals)
    printed = " ".join(line.strip() for line in re.sub(r"\x1b\[\d*m", "", said).splitlines() if "ERROR:" in line)
    return ToolchainError(f"onnx2tf: {type(error).__name__}: {str(error)[:1000]} {printed[:1000]}".rstrip())
