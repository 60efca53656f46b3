"""Time of every layer of a .tflite model, from the profiler that ai-edge-litert has in its C interface only.

The structures below are this version's; another version of the library may have others, so none is called there.
The profiler counts whole microseconds and cuts the rest off: layers below 1 us read as 0. It also slows the run.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge_deploy.core.child import run_in_child
from edge_deploy.core.errors import ToolchainError
from runtimes.contracts import Kernels
from runtimes.formats.tflite_file import read_tflite
from runtimes.formats.tflite_layers import layer_names
from runtimes.formats.tflite_signatures import PRIMARY
from runtimes.trimmed import trimmed_mean
from runtimes.xnnpack_events import assign_events

__all__ = ["TESTED_VERSIONS", "observed_kernels", "profile_in_child", "profile_layers"]

TESTED_VERSIONS = ("2.3.0",)
TIMEOUT_S = 600.0
WARM_UP_RUNS = 10
CPU = 1  # the accelerator that is no accelerator
WRITE = 1  # lock mode
BUILTIN_EVENT, DELEGATE_EVENT = 2, 8
MOST_EVENTS_AT_ONCE = 20000


class _Memory(ctypes.Structure):
    _fields_ = (("a", ctypes.c_size_t), ("b", ctypes.c_size_t), ("c", ctypes.c_size_t))


class _Event(ctypes.Structure):
    _fields_ = (
        ("tag", ctypes.c_char_p),
        ("kind", ctypes.c_int),
        ("start_us", ctypes.c_uint64),
        ("elapsed_us", ctypes.c_uint64),
        ("memory_before", _Memory),
        ("memory_after", _Memory),
        ("node", ctypes.c_uint64),
        ("subgraph", ctypes.c_uint64),
        ("source", ctypes.c_int),
    )


def profile_layers(
    path: Path,
    inputs: Mapping[str, np.ndarray],
    *,
    signature: str,
    subgraph: int,
    kernels: Kernels,
    threads: int,
    runs: int,
) -> dict[str, float] | None:
    """Typical seconds per layer (`trimmed_mean`), in a child process; a layer that was fused into another one has 0.

    None where the installed runtime is not one whose profiler we know, or its profiler fails on this model.
    """
    events = _events_of(path, inputs, signature=signature, kernels=kernels, threads=threads, runs=runs)
    return None if events is None else _by_layer(path, subgraph, events)


def observed_kernels(
    path: Path, inputs: Mapping[str, np.ndarray], *, signature: str, subgraph: int
) -> dict[str, str] | None:
    """Which library ran each layer, "XNNPACK" or "builtin", as the profiler saw it; None as in `profile_layers`."""
    events = _events_of(path, inputs, signature=signature, kernels="default", threads=1, runs=1)
    if events is None:
        return None
    builtin = {node for kind, _, node, _ in events if kind == BUILTIN_EVENT}
    names = layer_names(read_tflite(path).subgraphs[subgraph])
    return {name: "builtin" if index in builtin else "XNNPACK" for index, name in enumerate(names)}


def _events_of(
    path: Path, inputs: Mapping[str, np.ndarray], *, signature: str, kernels: Kernels, threads: int, runs: int
) -> list[list[Any]] | None:
    if kernels == "reference" or _library() is None:
        return None
    with tempfile.TemporaryDirectory(prefix="edge-deploy-profile-") as folder:
        file = Path(folder, "inputs.npz")
        names = {f"i{number}": name for number, name in enumerate(inputs)}
        np.savez(file, **{key: inputs[name] for key, name in names.items()})  # type: ignore[arg-type]  # arrays
        arguments = {
            "path": path.resolve(),
            "inputs": file,
            "names": names,
            "signature": signature,
            "kernels": kernels,
            "threads": threads,
            "runs": runs,
        }
        stage = f"profile of {path.name}"
        try:
            events: list[list[Any]] = run_in_child(
                "runtimes.litert_profiler:profile_in_child", arguments, stage=stage, timeout_s=TIMEOUT_S
            )
        except ToolchainError:
            return None
    return events


def _library() -> Path | None:
    try:
        version = importlib.metadata.version("ai-edge-litert")
        spec = importlib.util.find_spec("ai_edge_litert")
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return None
    if version not in TESTED_VERSIONS or spec is None or spec.origin is None:
        return None
    library = Path(spec.origin).with_name("libLiteRt.so")
    return library if library.is_file() else None


def _by_layer(path: Path, subgraph: int, events: list[list[Any]]) -> dict[str, float]:
    graph = read_tflite(path).subgraphs[subgraph]
    names = layer_names(graph)
    seconds = dict.fromkeys(names, 0.0)
    builtin = {node for kind, _, node, _ in events if kind == BUILTIN_EVENT}
    for kind, tag, node, mean in events:
        if kind == BUILTIN_EVENT:
            # A node's number is its operator's; nodes that the runtime added come after all of them.
            name = names[node] if node < len(names) else tag
            seconds[name] = seconds.get(name, 0.0) + mean
    taken = [index for index in range(len(names)) if index not in builtin]
    delegated = [(tag, mean) for kind, tag, _, mean in events if kind == DELEGATE_EVENT]
    places = assign_events([tag for tag, _ in delegated], [graph.operators[index].op for index in taken])
    for (tag, mean), place in zip(delegated, places, strict=True):
        name = tag if place is None else names[taken[place]]
        seconds[name] = seconds.get(name, 0.0) + mean
    return seconds


def profile_in_child(
    path: str, inputs: str, names: dict[str, str], signature: str, kernels: str, threads: int, runs: int
) -> list[list[Any]]:
    """What the child does: (kind, tag, node, mean seconds) of every event of one inference, in order.

    Raises:
        ToolchainError: A call of the library failed, or two inferences gave different events.
    """
    library = _library()
    if library is None:
        raise ToolchainError("profiler: this version of ai-edge-litert is not known.")
    with np.load(inputs, allow_pickle=False) as stored:
        arrays = {name: stored[key] for key, name in names.items()}
    model = _Model(ctypes.CDLL(str(library)), path, signature, kernels, threads)
    model.fill(arrays)
    return model.profile(runs)


class _Model:
    """A compiled model of the C interface with its buffers; lives as long as its process."""

    def __init__(self, library: ctypes.CDLL, path: str, signature: str, kernels: str, threads: int) -> None:
        self._library = library
        self._kept: list[Any] = []
        self._environment, self._model, options = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
        self._call("LiteRtCreateEnvironment", 0, None, ctypes.byref(self._environment))
        self._call("LiteRtCreateModelFromFile", self._environment, path.encode(), ctypes.byref(self._model))
        self._call("LiteRtCreateOptions", ctypes.byref(options))
        self._call("LiteRtSetOptionsHardwareAccelerators", options, CPU)
        self._add(options, "runtime_options_string", "enable_profiling = true\n")
        mode = 'kernel_mode = "builtin"\n' if kernels == "builtin" else ""
        self._add(options, "xnnpack", f"{mode}num_threads = {threads}\n")
        self._compiled = ctypes.c_void_p()
        self._call("LiteRtCreateCompiledModel", self._environment, self._model, options, ctypes.byref(self._compiled))
        self._index, self._signature = self._find(signature)
        self.input_names, self._inputs = self._buffers("Input")
        _, self._outputs = self._buffers("Output")

    def fill(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Copy the values in; names of a model without signatures are its tensors'."""
        values = [arrays[name] for name in self.input_names if name in arrays]
        if len(values) != len(self.input_names):
            raise ToolchainError(f"profiler: inputs are {', '.join(self.input_names)}, given {', '.join(arrays)}.")
        for buffer, value in zip(self._inputs, values, strict=True):
            data, room = np.ascontiguousarray(value), ctypes.c_size_t()
            self._call("LiteRtGetTensorBufferPackedSize", ctypes.c_void_p(buffer), ctypes.byref(room))
            if room.value != data.nbytes:
                raise ToolchainError(f"profiler: an input of {data.nbytes} bytes, the model takes {room.value}.")
            host = ctypes.c_void_p()
            self._call("LiteRtLockTensorBuffer", ctypes.c_void_p(buffer), ctypes.byref(host), WRITE)
            ctypes.memmove(host, data.ctypes.data, data.nbytes)
            self._call("LiteRtUnlockTensorBuffer", ctypes.c_void_p(buffer))

    def profile(self, runs: int) -> list[list[Any]]:
        """Run and average the events of the runs, which must be the same each time."""
        for _ in range(WARM_UP_RUNS):
            self._run()
        profiler = ctypes.c_void_p()
        self._call("LiteRtCompiledModelGetProfiler", self._compiled, ctypes.byref(profiler))
        first: list[tuple[int, str, int]] = []
        elapsed: list[list[int]] = []
        for _ in range(runs):
            self._call("LiteRtStartProfiler", profiler)
            self._run()
            self._call("LiteRtStopProfiler", profiler)
            events = self._events(profiler)
            self._call("LiteRtResetProfiler", profiler)
            keys = [(event.kind, (event.tag or b"").decode(), int(event.node)) for event in events]
            if not first:
                first, elapsed = keys, [[] for _ in keys]
            if keys != first:
                raise ToolchainError("profiler: two inferences gave different events.")
            for seen, event in zip(elapsed, events, strict=True):
                seen.append(int(event.elapsed_us))
        return [[*key, trimmed_mean(seen) * 1e-6] for key, seen in zip(first, elapsed, strict=True)]

    def _events(self, profiler: ctypes.c_void_p) -> list[Any]:
        count = ctypes.c_int()
        self._call("LiteRtGetNumProfilerEvents", profiler, ctypes.byref(count))
        if not 0 <= count.value <= MOST_EVENTS_AT_ONCE:
            raise ToolchainError(f"profiler: {count.value} events of one inference.")
        events = (_Event * count.value)()
        self._call("LiteRtGetProfilerEvents", profiler, count, events)
        return [event for event in events if event.kind in (BUILTIN_EVENT, DELEGATE_EVENT)]

    def _call(self, name: str, *arguments: Any) -> None:
        function = getattr(self._library, name)
        function.restype = ctypes.c_int
        status = function(*arguments)
        if status:
            raise ToolchainError(f"profiler: {name} gave status {status}.")

    def _add(self, options: ctypes.c_void_p, identifier: str, payload: str) -> None:
        release = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: None)
        text, opaque = ctypes.create_string_buffer(payload.encode()), ctypes.c_void_p()
        self._kept += [release, text]
        pointer = ctypes.cast(text, ctypes.c_void_p)
        name = ctypes.c_char_p(identifier.encode())
        self._call("LiteRtCreateOpaqueOptions", name, pointer, release, ctypes.byref(opaque))
        self._call("LiteRtAddOpaqueOptions", options, opaque)

    def _find(self, wanted: str) -> tuple[ctypes.c_size_t, ctypes.c_void_p]:
        count = ctypes.c_size_t()
        self._call("LiteRtGetNumModelSignatures", self._model, ctypes.byref(count))
        for index in range(count.value):
            signature, key = ctypes.c_void_p(), ctypes.c_char_p()
            self._call("LiteRtGetModelSignature", self._model, ctypes.c_size_t(index), ctypes.byref(signature))
            self._call("LiteRtGetSignatureKey", signature, ctypes.byref(key))
            if (key.value or b"").decode() == wanted or wanted == PRIMARY:
                return ctypes.c_size_t(index), signature
        raise ToolchainError(f"profiler: no signature {wanted}.")

    def _buffers(self, kind: str) -> tuple[list[str], Any]:
        count, names = ctypes.c_size_t(), []
        self._call(f"LiteRtGetNumSignature{kind}s", self._signature, ctypes.byref(count))
        buffers = (ctypes.c_void_p * count.value)()
        for number in range(count.value):
            place, name, tensor = ctypes.c_size_t(number), ctypes.c_char_p(), ctypes.c_void_p()
            self._call(f"LiteRtGetSignature{kind}Name", self._signature, place, ctypes.byref(name))
            self._call(f"LiteRtGetSignature{kind}TensorByIndex", self._signature, place, ctypes.byref(tensor))
            names.append((name.value or b"").decode())
            ranked = (ctypes.c_int32 * 18)()
            self._call("LiteRtGetRankedTensorType", tensor, ctypes.byref(ranked))
            for dimension in range(2, 10):
                ranked[dimension] = max(1, ranked[dimension]) if ranked[dimension] < 0 else ranked[dimension]
            needs, buffer = ctypes.c_void_p(), ctypes.c_void_p()
            self._call(
                f"LiteRtGetCompiledModel{kind}BufferRequirements",
                self._compiled,
                self._index,
                place,
                ctypes.byref(needs),
            )
            self._call(
                "LiteRtCreateManagedTensorBufferFromRequirements",
                self._environment,
                ctypes.byref(ranked),
                needs,
                ctypes.byref(buffer),
            )
            buffers[number] = buffer
        return names, buffers

    def _run(self) -> None:
        self._call(
            "LiteRtRunCompiledModel",
            self._compiled,
            self._index,
            ctypes.c_size_t(len(self._inputs)),
            self._inputs,
            ctypes.c_size_t(len(self._outputs)),
            self._outputs,
        )
