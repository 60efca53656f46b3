"""Run .tflite files by ai-edge-litert, or by tflite-runtime where only that is installed."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from edge_deploy.core.artifact import Signature
from edge_deploy.core.errors import BadInput, MissingExtra, ToolchainError, Unsupported
from edge_deploy.core.require import require
from edge_deploy.core.tensor import TensorInfo
from runtimes.calling import check_inputs, pick_signature
from runtimes.contracts import Kernels
from runtimes.formats.tflite_signatures import PRIMARY
from runtimes.residency import residency_of

__all__ = ["LitertSession", "open_model", "runtime_version"]

RESOLVERS = {"default": "AUTO", "builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES", "reference": "BUILTIN_REF"}
KERNEL_NAMES = {"default": "XNNPACK", "builtin": "builtin", "reference": "reference"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """Where the tensors of a signature stand: (name, index) in the order of the signature; `key` is the file's."""

    key: str
    subgraph: int
    inputs: tuple[tuple[str, int], ...]
    outputs: tuple[tuple[str, int], ...]


class LitertSession:
    """A loaded .tflite file; see `runtimes.contracts.Session`.

    Values are copied in and out: views into the interpreter would block its next inference.
    """

    def __init__(
        self,
        path: Path,
        interpreter: Any,
        signature: Signature,
        call: _Call,
        *,
        kernels: str,
        choice: Kernels,
        threads: int,
    ) -> None:
        self.signature = signature
        self.kernels = kernels
        self._path = path
        self._choice = choice
        self._threads = threads
        self._call = call
        self._subgraph = call.subgraph
        self._interpreter = interpreter
        # The Python layer reaches the primary subgraph only; the layer below it takes the subgraph's number.
        self._wrapper = interpreter._interpreter
        self._feeds = tuple(
            (info.name, index, info.shape, np.dtype(info.dtype))
            for info, (_, index) in zip(signature.inputs, call.inputs, strict=True)
        )
        self._declared = self._feeds
        self._fetches = tuple(
            (info.name, index) for info, (_, index) in zip(signature.outputs, call.outputs, strict=True)
        )
        if not any(-1 in info.shape for info in signature.inputs):
            self._allocate()
        self._residency = residency_of(path)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One inference; see `runtimes.contracts.Session.run`.

        Raises:
            BadInput: An input is missing, unknown or of another shape or type, or an id is out of range.
            ToolchainError: The interpreter failed otherwise.
        """
        wrapper = self._wrapper
        if wrapper is None:
            raise BadInput(f"{self._path}: the session is closed; open a new one.")
        subgraph = self._subgraph
        if len(inputs) != len(self._feeds):
            check_inputs(self.signature, inputs)
        try:
            for name, index, shape, dtype in self._feeds:
                value = inputs[name]
                if value.shape != shape or (value.dtype is not dtype and value.dtype != dtype):
                    self._resize(inputs)
                    return self.run(inputs)
                wrapper.SetTensor(index, value, subgraph)
            wrapper.Invoke(subgraph)
            found = {}  # a loop costs less than a comprehension, which is a call
            for name, index in self._fetches:
                found[name] = wrapper.GetTensor(index, subgraph)
            if self._residency is not None:
                self._residency.ran()
            return found
        except (KeyError, AttributeError):
            check_inputs(self.signature, inputs)
            raise
        except (RuntimeError, ValueError) as error:
            raise _run_error(self._path, error) from error

    def layer_seconds(self, inputs: Mapping[str, np.ndarray], *, runs: int) -> dict[str, float] | None:
        """Mean seconds per layer, measured by a second copy of the model in a child process; None without profiler."""
        from runtimes.litert_profiler import profile_layers

        check_inputs(self.signature, inputs)
        return profile_layers(
            self._path,
            inputs,
            signature=self._call.key,
            subgraph=self._call.subgraph,
            kernels=self._choice,
            threads=self._threads,
            runs=runs,
        )

    def close(self) -> None:
        """Free the model."""
        if self._residency is not None:
            self._residency.close()
            self._residency = None
        self._wrapper = None
        self._interpreter = None

    def _resize(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Take the dynamic dimensions of these inputs; the signature's own -1 matches no array, so it comes first."""
        check_inputs(self.signature, inputs)
        feeds = tuple((name, index, inputs[name].shape, dtype) for name, index, _, dtype in self._declared)
        self._feeds = self._declared  # until the interpreter has room, no array fits
        for _, index, shape, _ in feeds:
            self._wrapper.ResizeInputTensor(index, np.array(shape, np.int32), False, self._call.subgraph)
        self._allocate()
        self._feeds = feeds

    def _allocate(self) -> None:
        try:
            self._wrapper.AllocateTensors(self._call.subgraph)
        except (RuntimeError, ValueError) as error:
            raise BadInput(f"{self._path}: the runtime cannot prepare it: {_tidy(error)}") from error


def open_model(
    path: Path,
    *,
    data_files: tuple[Path, ...],
    known: tuple[Signature, ...],
    signature: str | None,
    threads: int,
    kernels: Kernels,
) -> LitertSession:
    """Load a .tflite file; see `runtimes.contracts.Backend.open_model`.

    Raises:
        BadInput: The file cannot be loaded, has no such signature, or differs from what the manifest says.
        MissingExtra: Neither ai-edge-litert nor tflite-runtime is installed.
        Unsupported: tflite-runtime would compute this file wrongly.
    """
    if data_files:
        raise Unsupported(f"{path}: a .tflite file has no data files beside it, found {data_files[0].name}.")
    module, name, version = _runtime()
    try:
        interpreter = module.Interpreter(
            model_path=str(path),
            num_threads=threads,
            experimental_op_resolver_type=getattr(module.OpResolverType, RESOLVERS[kernels]),
        )
    except (ValueError, RuntimeError) as error:
        raise BadInput(f"{path}: {name} {version} cannot load it: {_tidy(error)}") from error
    if name == "tflite-runtime":
        _refuse_row_tables(path, interpreter)
    found = _signatures(path, interpreter)
    chosen = pick_signature(path, tuple(info for info, _ in found), signature)
    info, call = next((info, call) for info, call in found if info.name == chosen.name)
    if known:
        info, call = _as_manifest_says(path, pick_signature(path, known, signature), info, call)
    used = f"{name} {version} {KERNEL_NAMES[kernels]}"
    return LitertSession(path, interpreter, info, call, kernels=used, choice=kernels, threads=threads)


def runtime_version() -> tuple[str, str]:
    """Name and version of the runtime that sessions use, e.g. ("ai-edge-litert", "2.3.0").

    Raises:
        MissingExtra: None is installed.
    """
    _, name, version = _runtime()
    return name, version


def _runtime() -> tuple[ModuleType, str, str]:
    try:
        module, name = require("ai_edge_litert.interpreter", extra="run-tflite"), "ai-edge-litert"
    except MissingExtra as missing:
        try:
            module, name = require("tflite_runtime.interpreter", extra="run-tflite"), "tflite-runtime"
        except MissingExtra:
            raise missing from None
    return module, name, _version_of(name)


def _version_of(package: str) -> str:
    # As the package says itself: what reads the metadata of installed packages is Python's parser of mail, which takes
    # a twentieth of a session's opening to import.
    said = getattr(sys.modules[package.replace("-", "_")], "__version__", None)
    if said is not None:
        return str(said)
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "of unknown version"


def _signatures(path: Path, interpreter: Any) -> tuple[tuple[Signature, _Call], ...]:
    found = []
    wrapper = interpreter._interpreter
    for key, entry in interpreter._get_full_signature_list().items():
        subgraph = wrapper.GetSubgraphIndexFromSignature(key)

        def described(entries: Mapping[str, int], subgraph: int = subgraph) -> list[tuple[str, int, TensorInfo]]:
            return [
                (name, index, _info(interpreter._get_tensor_details(index, subgraph), name))
                for name, index in entries.items()
            ]

        inputs, outputs = described(entry["inputs"]), described(entry["outputs"])
        found.append(_signature(key, subgraph, inputs, outputs))
    if not found:
        inputs = _named(interpreter.get_input_details(), "input")
        outputs = _named(interpreter.get_output_details(), "output")
        found.append(_signature(PRIMARY, 0, inputs, outputs))
    return tuple(found)


def _signature(
    key: str, subgraph: int, inputs: list[tuple[str, int, TensorInfo]], outputs: list[tuple[str, int, TensorInfo]]
) -> tuple[Signature, _Call]:
    signature = Signature(
        name=key, inputs=tuple(info for *_, info in inputs), outputs=tuple(info for *_, info in outputs)
    )
    call = _Call(
        key=key,
        subgraph=subgraph,
        inputs=tuple((name, index) for name, index, _ in inputs),
        outputs=tuple((name, index) for name, index, _ in outputs),
    )
    return signature, call


def _named(details: list[dict[str, Any]], fallback: str) -> list[tuple[str, int, TensorInfo]]:
    names: list[str] = []
    for place, detail in enumerate(details):
        name = detail["name"]
        names.append(name if name and name not in names else f"{fallback}_{place}")
    return [(name, detail["index"], _info(detail, name)) for name, detail in zip(names, details, strict=True)]


def _info(detail: Mapping[str, Any], name: str) -> TensorInfo:
    kind = np.dtype(detail["dtype"]) if detail["dtype"] is not None else np.dtype(object)
    if kind.kind not in "fiub" or kind.itemsize > 8 or (kind.name.startswith("uint") and kind.itemsize > 1):
        raise Unsupported(f"tensor {name}: type {kind.name}: sessions carry real numbers and booleans only.")
    dynamic = detail.get("shape_signature")
    shape = detail["shape"] if dynamic is None or not len(dynamic) else dynamic
    quantization = detail["quantization_parameters"]
    scale = tuple(float(value) for value in quantization["scales"])
    return TensorInfo(
        name=name,
        shape=tuple(int(size) for size in shape),
        dtype=kind.name,  # type: ignore[arg-type]  # the check above leaves the literal's values
        scale=scale,
        zero_point=tuple(int(value) for value in quantization["zero_points"])[: len(scale)],
        quantized_dimension=int(quantization["quantized_dimension"]) if len(scale) > 1 else None,
    )


def _as_manifest_says(path: Path, wanted: Signature, found: Signature, call: _Call) -> tuple[Signature, _Call]:
    """The manifest's signature, which knows layouts and labels, on the indices of the file's."""

    def order(
        want: tuple[TensorInfo, ...], have: tuple[TensorInfo, ...], places: tuple[tuple[str, int], ...], what: str
    ) -> tuple[tuple[str, int], ...]:
        by_name = {info.name: (info, place) for info, place in zip(have, places, strict=True)}
        if set(by_name) != {info.name for info in want}:
            wanted_names = ", ".join(info.name for info in want)
            raise BadInput(f"{path}: {what}s are {', '.join(by_name)}; the manifest says {wanted_names}.")
        for info in want:
            other = by_name[info.name][0]
            if (other.dtype, other.shape) != (info.dtype, info.shape):
                is_, should = f"{other.dtype} {other.shape}", f"{info.dtype} {info.shape}"
                raise BadInput(f"{path}: {what} {info.name} is {is_}; the manifest says {should}.")
        return tuple(by_name[info.name][1] for info in want)

    inputs = order(wanted.inputs, found.inputs, call.inputs, "input")
    outputs = order(wanted.outputs, found.outputs, call.outputs, "output")
    return wanted, _Call(key=call.key, subgraph=call.subgraph, inputs=inputs, outputs=outputs)


def _refuse_row_tables(path: Path, interpreter: Any) -> None:
    # tflite-runtime 2.14 takes one scale for all rows of a table and gives no sign of it.
    for operator in interpreter._get_ops_details():
        if operator["op_name"] == "EMBEDDING_LOOKUP":
            table = interpreter._get_tensor_details(int(operator["inputs"][1]), 0)
            if len(table["quantization_parameters"]["scales"]) > 1:
                raise Unsupported(
                    f"{path}: table {table['name']} has a scale per row, which tflite-runtime computes wrongly; "
                    "install ai-edge-litert 1.4 or newer, or convert with --table-scale table."
                )


def _run_error(path: Path, error: Exception) -> BadInput | ToolchainError:
    text = _tidy(error)
    if "out of bounds" in text or "out of range" in text:
        return BadInput(f"{path}: an id is out of range: {text}")
    return ToolchainError(f"{path}: inference failed: {text}")


def _tidy(error: Exception) -> str:
    return " ".join(str(error).split())[:500]
