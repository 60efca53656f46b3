"""What a session costs beside the bare interpreter: the same file, the same arrays, call by call in turns."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edge_deploy.core.require import require

__all__ = ["measure"]

ROUNDS = 200
CALLS = 50


def measure() -> dict[str, dict[str, float]]:
    """Microseconds of the bare interpreter, of a session, and between them, on two layers in both formats.

    Both sides take a NumPy array and give one of its own: for LiteRT set_tensor, invoke, get_tensor; for ExecuTorch the
    fastest way known, a copy into a tensor made once, run_method without its copies of outputs, and NumPy's copy.
    """
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, width in (("MLP of 256 MACs", 16), ("MLP of 262 k MACs", 512)):
            found[f"{name}, TFLite"] = _measure(_tflite(Path(folder) / f"{width}.tflite", width), _bare_litert)
            found[f"{name}, ExecuTorch"] = _measure(_pte(Path(folder) / f"{width}.pte", width), _bare_executorch)
    return found


def _tflite(path: Path, width: int) -> Path:
    tf = require("tensorflow", extra="export-tflite")
    weights = tf.random.normal((width, width), seed=0)
    function = tf.function(lambda x: {"y": tf.nn.relu(x @ weights)})
    concrete = function.get_concrete_function(tf.TensorSpec((1, width), name="x"))
    path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert())
    return path


def _pte(path: Path, width: int) -> Path:
    torch = require("torch", extra="export-executorch")
    exir = require("executorch.exir", extra="export-executorch")
    xnnpack = require("executorch.backends.xnnpack.partition.xnnpack_partitioner", extra="export-executorch")
    module = torch.nn.Sequential(torch.nn.Linear(width, width, bias=False), torch.nn.ReLU()).eval()
    program = torch.export.export(module, (torch.zeros(1, width),))
    edge = exir.to_edge_transform_and_lower(program, partitioner=[xnnpack.XnnpackPartitioner()])
    path.write_bytes(edge.to_executorch().buffer)
    return path


def _bare_litert(path: Path, array: np.ndarray) -> Callable[[], Any]:
    interpreter = require("ai_edge_litert.interpreter", extra="run-tflite").Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    at, out = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def bare() -> Any:
        interpreter.set_tensor(at, array)
        interpreter.invoke()
        return interpreter.get_tensor(out)

    return bare


def _bare_executorch(path: Path, array: np.ndarray) -> Callable[[], Any]:
    torch = require("torch", extra="run-executorch")
    runtime = require("executorch.extension.pybindings.portable_lib", extra="run-executorch")
    program = path.read_bytes()  # the module reads from these bytes as long as it lives
    module = runtime._load_for_executorch_from_buffer(program, None)

    buffer = np.empty_like(array)
    tensors = [torch.from_numpy(buffer)]

    def bare(keep: bytes = program) -> Any:
        buffer[...] = array
        return module.run_method("forward", tensors, False)[0].numpy().copy()

    return bare


def _measure(path: Path, open_bare: Callable[[Path, np.ndarray], Callable[[], Any]]) -> dict[str, float]:
    from runtimes.session import open_session

    session = open_session(path, trusted=True)  # first: it sets ExecuTorch's threads, which all of a process share
    info = session.signature.inputs[0]
    array = np.random.default_rng(0).standard_normal(info.shape).astype(np.float32)
    feed = {info.name: array}
    bare = open_bare(path, array)

    def ours() -> Any:
        return session.run(feed)

    seconds: dict[Callable[[], Any], list[float]] = {bare: [], ours: []}
    for number in range(ROUNDS):
        for call in (bare, ours) if number % 2 else (ours, bare):
            seconds[call].append(_seconds(call))
    session.close()
    added = np.sort(np.asarray(seconds[ours]) - np.asarray(seconds[bare]))
    half = int(0.98 * np.sqrt(ROUNDS))  # ranks of the 95 % interval of a median, normal approximation
    return {
        "bare_us": float(np.median(seconds[bare])) * 1e6,
        "session_us": float(np.median(seconds[ours])) * 1e6,
        "added_us": float(np.median(added)) * 1e6,
        "low_us": float(added[ROUNDS // 2 - half]) * 1e6,
        "high_us": float(added[ROUNDS // 2 + half]) * 1e6,
    }


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    for _ in range(CALLS):
        call()
    return (time.perf_counter() - start) / CALLS
