"""Look-ups of the file itself against torch's 4-bit embedding bag: the same rows and ids, one id a bag, in turns.

Both run on one thread and sleep on nothing, so that what is counted is its processor time: the same on an idle
machine, and still the same where others want the processor too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from converters.recommender.rows import encoded
from converters.tflite import emit_ops
from converters.tflite.emit import Emitter
from converters.tflite.recommender_tables import quantize_rows, row_scales
from edge_deploy.bench.tables_use import power_law_ids, uniform_ids
from edge_deploy.core.require import require

__all__ = ["lookup_rows", "memory_bandwidth"]

DIM = 16
BATCH = 4096
ROUNDS = 24
LINE_BYTES = 64
SIZES = {"1 M rows": 1_000_000, "33 M rows": 33_000_000}


def lookup_rows(folder: Path) -> list[dict[str, Any]]:
    """One row for each size, kind of ids and storage of the table, at one thread.

    Returns:
        Millions of look-ups a second of LiteRT and of torch (medians of `ROUNDS` turns), their ratio, and the share of
        the memory bandwidth that is measured beside them: of the bytes of rows and scales, and of whole cache lines.
    """
    torch = require("torch", extra="run-executorch")
    torch.set_num_threads(1)
    bandwidth = memory_bandwidth()
    found = []
    for size, rows in SIZES.items():
        table = _Made(rows)
        kernel = _torch_kernel(torch, table)
        runners = {scale: _litert(folder / f"{rows}-{scale}.tflite", table, scale) for scale in ("row", "table")}
        for ids_name, make in (("uniform", uniform_ids), ("power-law", power_law_ids)):
            for scale, run in runners.items():
                mine, theirs = _in_turns(run, kernel, partial(_ids, make, rows))
                wide = DIM // 2 + (2 if scale == "row" else 0)
                lines = LINE_BYTES * (2 if scale == "row" else 1)
                found.append(
                    {
                        "table": size,
                        "ids": ids_name,
                        "scale": scale,
                        "litert": BATCH / mine / 1e6,
                        "torch": BATCH / theirs / 1e6,
                        "ratio": theirs / mine,
                        "bytes_share": BATCH * (wide + 4 * DIM) / mine / bandwidth,
                        "lines_share": BATCH * (lines + 4 * DIM) / mine / bandwidth,
                        "bandwidth": bandwidth / 1e9,
                    }
                )
        for file in folder.glob(f"{rows}-*.tflite"):
            file.unlink()
    return found


def memory_bandwidth(size: int = 1 << 28) -> float:
    """Bytes a second that one thread reads from memory, from the sum of an array that no cache holds."""
    values = np.ones(size // 8, np.int64)
    times = []
    for _ in range(7):
        begin = time.process_time()
        values.sum()
        times.append(time.process_time() - begin)
    return size / float(np.median(times))


class _Made:
    """Rows that are made when they are looked at: a table without memory, the same values each time."""

    dtype = np.dtype(np.float32)

    def __init__(self, rows: int) -> None:
        self.shape = (rows, DIM)
        self._pattern = np.random.default_rng(0).normal(size=(4099, DIM)).astype(np.float32)

    def __getitem__(self, rows: slice) -> np.ndarray:
        places = np.arange(rows.start, min(rows.stop, self.shape[0]))
        made: np.ndarray = self._pattern[places % 4099] * (1 + (places % 7))[:, None].astype(np.float32)
        return made


def _ids(make: Any, rows: int) -> np.ndarray:
    random = np.random.default_rng(time.perf_counter_ns())
    # Frequent rows lie anywhere in a table that was hashed; neighbours in rank are none in place.
    drawn: np.ndarray = make(random, np.array([rows]), BATCH).reshape(-1)
    return drawn * 1_000_003 % rows if make is power_law_ids else drawn


def _litert(path: Path, table: Any, scale: str) -> Callable[[np.ndarray], None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    emitter = Emitter("look-ups")
    shape = table.shape
    if scale == "row":
        scales = emitter.streamed(
            "scales", (shape[0], 1), "float16", lambda: encoded(table, 2, lambda rows: row_scales(rows, 4))
        )
        rows_of = lambda rows: quantize_rows(rows, row_scales(rows, 4), 4, DIM)  # noqa: E731  # one of two
        constant = emitter.streamed(
            "table", shape, "int4", lambda: encoded(table, DIM // 2, rows_of), block_scales=scales
        )
    else:
        step = np.float32(4.0)
        rows_of = lambda rows: quantize_rows(rows, np.full(len(rows), step), 4, DIM)  # noqa: E731  # the other
        constant = emitter.streamed(
            "table", shape, "int4", lambda: encoded(table, DIM // 2, rows_of), scale=np.array([step])
        )
    graph = emitter.graph("main")
    ids = graph.tensor("ids", (BATCH,), "int32")
    graph.sign("serving_default", {"ids": ids}, {"rows": emit_ops.lookup(graph, ids, constant, "rows")})
    emitter.write(path)
    interpreter = require("ai_edge_litert.interpreter", extra="run-tflite").Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    place, wrapper = interpreter.get_input_details()[0]["index"], interpreter._interpreter

    def run(drawn: np.ndarray) -> None:
        wrapper.SetTensor(place, drawn.astype(np.int32), 0)
        wrapper.Invoke(0)

    return run


def _torch_kernel(torch: Any, table: Any) -> Callable[[np.ndarray], None]:
    rows = table.shape[0]
    packed = np.zeros((rows, DIM // 2 + 4), np.uint8)  # values, then a float16 scale and bias
    for start in range(0, rows, 1 << 16):
        own = np.asarray(table[start : start + (1 << 16)])
        packed[start : start + len(own), : DIM // 2] = quantize_rows(own, row_scales(own, 4), 4, DIM)
        packed[start : start + len(own), DIM // 2 : DIM // 2 + 2] = row_scales(own, 4)[:, None].view(np.uint8)
    weight, offsets = torch.from_numpy(packed), torch.arange(BATCH + 1)
    operator = torch.ops.quantized.embedding_bag_4bit_rowwise_offsets

    def run(drawn: np.ndarray) -> None:
        operator(weight, torch.from_numpy(drawn), offsets, False, 0, False, None, None, True)

    return run


def _in_turns(mine: Any, theirs: Any, draw: Callable[[], np.ndarray]) -> tuple[float, float]:
    """Median seconds of both, call by call on the same ids; fresh ones each round, caches as the other left them."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(ROUNDS + 2):
        sets = [draw() for _ in range(16)]
        for place in (0, 1) if number % 2 else (1, 0):
            run = (mine, theirs)[place]
            run(sets[0])
            begin = time.process_time()
            for drawn in sets:
                run(drawn)
            times[place].append((time.process_time() - begin) / len(sets))
    return float(np.median(times[0][2:])), float(np.median(times[1][2:]))
