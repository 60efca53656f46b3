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
    """Microseconds of the bare interpreter, of a session, and between them, on two hand-made models."""
    with tempfile.TemporaryDirectory() as folder:
        files = {
            "tiny MLP": _mlp(Path(folder) / "mlp.tflite", 16),
            "MLP of 4 M MACs": _mlp(Path(folder) / "l.tflite", 2048),
        }
        return {name: _measure(path) for name, path in files.items()}


def _mlp(path: Path, width: int) -> Path:
    tf = require("tensorflow", extra="export-tflite")
    weights = tf.random.normal((width, width), seed=0)
    function = tf.function(lambda x: {"y": tf.nn.relu(x @ weights)})
    concrete = function.get_concrete_function(tf.TensorSpec((1, width), name="x"))
    path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert())
    return path


def _measure(path: Path) -> dict[str, float]:
    from runtimes.session import open_session

    session = open_session(path, trusted=True)
    info = session.signature.inputs[0]
    array = np.random.default_rng(0).standard_normal(info.shape).astype(np.float32)
    feed = {info.name: array}
    interpreter = require("ai_edge_litert.interpreter", extra="run-tflite").Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    at, out = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def bare() -> Any:
        interpreter.set_tensor(at, array)
        interpreter.invoke()
        return interpreter.get_tensor(out)

    ours, theirs = [], []
    for _ in range(ROUNDS):
        theirs.append(_seconds(bare))
        ours.append(_seconds(lambda: session.run(feed)))
    added = np.sort(np.asarray(ours) - np.asarray(theirs))
    half = int(0.98 * np.sqrt(ROUNDS))  # ranks of the 95 % interval of a median, normal approximation
    return {
        "bare_us": float(np.median(theirs)) * 1e6,
        "session_us": float(np.median(ours)) * 1e6,
        "added_us": float(np.median(added)) * 1e6,
        "low_us": float(added[ROUNDS // 2 - half]) * 1e6,
        "high_us": float(added[ROUNDS // 2 + half]) * 1e6,
    }


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    for _ in range(CALLS):
        call()
    return (time.perf_counter() - start) / CALLS
