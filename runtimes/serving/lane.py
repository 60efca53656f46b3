"""Sessions of one model for one thread: the batch size that fits is filled up, run, and cut to the rows asked for."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from edge_deploy.core.artifact import Signature
from edge_deploy.core.errors import EdgeDeployError
from edge_deploy.core.tensor import TensorInfo
from runtimes.contracts import Session
from runtimes.serving.offers import ANY, Offer
from runtimes.serving.tensors import holder
from runtimes.session import open_session

__all__ = ["Lane", "random_rows", "rows_are_independent", "sizes_of"]

Arrays = Mapping[str, np.ndarray]
QUICK_S = 150e-6  # handing an inference to a thread and back costs 60 to 120 us
MOST_OF_ANY = 8
KEPT = 0.8  # share of the former mean in the running mean of an inference's seconds


class Lane:
    """Runs batches of one model; one at a time.

    Args:
        sizes: Batch sizes to use, ascending; empty for a model that takes its inputs as they are.
    """

    def __init__(self, offer: Offer, sizes: Sequence[int], *, threads: int = 1) -> None:
        self._offer, self._sizes, self._threads = offer, tuple(sizes), threads
        self._sessions: dict[int, Session] = {}
        self._seconds: dict[int, float] = {}
        # A thread's own time, where the inference is its alone: other work on the machine is no property of the model.
        self._clock = time.thread_time if threads == 1 else time.perf_counter

    def __call__(self, arrays: Arrays) -> Arrays:
        """Outputs for all rows of the inputs, by one inference or by several where that takes less time.

        Raises:
            BadInput: The artifact's files are not those of its manifest, or the values are none that the model takes.
            ToolchainError: The inference failed.
        """
        if not self._sizes:
            return self._run(0, 0, arrays)
        rows = len(next(iter(arrays.values())))
        size = self._size_for(rows)
        if size >= rows:
            return self._run(size, rows, arrays)
        parts = []
        for start in range(0, rows, size):
            part = {name: array[start : start + size] for name, array in arrays.items()}
            # What is left over may fit a smaller size.
            parts.append(self(part) if start + size > rows else self._run(size, size, part))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def is_quick(self, rows: int) -> bool:
        """See `runtimes.serving.batching.Run`."""
        size = self._size_for(rows) if self._sizes else 0
        return (size >= rows or not size) and self._seconds.get(size, math.inf) < QUICK_S

    def open(self) -> None:
        """Load the smallest size; the others are loaded when they are first needed."""
        self._session(self._sizes[0] if self._sizes else 0)

    def close(self) -> None:
        """Free the sessions."""
        for session in self._sessions.values():
            session.close()
        self._sessions.clear()

    def _run(self, size: int, rows: int, arrays: Arrays) -> Arrays:
        session = self._session(size)
        begun_s = self._clock()
        if size == rows:
            found: Arrays = session.run(arrays)
        else:
            # The last row once more: always values that the model takes.
            filled = {name: array[np.arange(size).clip(max=rows - 1)] for name, array in arrays.items()}
            found = {name: array[:rows] for name, array in session.run(filled).items()}
        took_s = self._clock() - begun_s
        self._seconds[size] = took_s + KEPT * (self._seconds.get(size, took_s) - took_s)
        return found

    def _size_for(self, rows: int) -> int:
        """The size to begin with: one that holds all rows, unless filling it up costs more than smaller ones would."""
        holding = next((size for size in self._sizes if size >= rows), None)
        smaller = max((size for size in self._sizes if size < rows), default=None)
        if holding is None or smaller is None or holding == rows:
            return smaller if holding is None and smaller is not None else holding or rows
        filled_s, smaller_s = self._seconds.get(holding), self._seconds.get(smaller)
        if filled_s is None or smaller_s is None:
            return holding if holding <= 2 * rows else smaller
        return holding if filled_s <= math.ceil(rows / smaller) * smaller_s else smaller

    def _session(self, size: int) -> Session:
        found = self._sessions.get(size)
        if found is None:
            # A session of its own for each size: resizing one back and forth would prepare the model every time.
            name = _signature_for(self._offer, size).name
            found = open_session(self._offer.folder, signature=name, threads=self._threads)
            self._sessions[size] = found
        return found


def sizes_of(offer: Offer, most: int | None) -> tuple[int, ...]:
    """Batch sizes that a lane uses: the artifact's own up to `most`, or powers of two where it takes any (up to 8)."""
    if most is None:
        most = MOST_OF_ANY if ANY in offer.batches else max(offer.batches, default=1)
    if ANY in offer.batches:
        return tuple(1 << power for power in range(most.bit_length()) if 1 << power <= most)
    if len(offer.batches) < 2:
        return ()
    return tuple(size for size in offer.batches if size <= most) or offer.batches[:1]


def rows_are_independent(offer: Offer, sizes: Sequence[int], lane: Callable[[Arrays], Arrays]) -> bool:
    """Whether a batch gives each row what the row alone gives, bit for bit: only then may requests share one.

    Some models have a first dimension that is no batch, or quantize activations over a whole batch.
    """
    rows = random_rows(offer.signatures[0].inputs, sizes[-1])
    try:
        together = lane(rows)
        for place in range(sizes[-1]):
            alone = lane({name: array[place : place + 1] for name, array in rows.items()})
            if any(not np.array_equal(alone[name], together[name][place : place + 1]) for name in together):
                return False
    except EdgeDeployError:
        return False
    return all(len(array) == sizes[-1] for array in together.values())


def _signature_for(offer: Offer, size: int) -> Signature:
    for signature, batch in zip(offer.signatures, offer.batches, strict=False):
        if batch == size:
            return signature
    return offer.signatures[0]


def random_rows(inputs: Sequence[TensorInfo], rows: int) -> dict[str, np.ndarray]:
    """Seeded inputs that the model takes: ids within the bounds that are known, else 0 and 1."""
    rng = np.random.default_rng(0)
    made = {}
    for info in inputs:
        sized = replace(info, shape=(rows, *(1 if size < 0 else size for size in info.shape[1:])))
        kind = np.dtype(holder(info.dtype))
        if kind.kind == "f":
            made[info.name] = rng.normal(size=sized.shape).astype(kind)
        elif kind.kind == "b":
            made[info.name] = rng.integers(0, 2, sized.shape).astype(kind)
        elif info.scale:
            made[info.name] = rng.integers(np.iinfo(kind).min, np.iinfo(kind).max, sized.shape, kind, endpoint=True)
        else:
            made[info.name] = rng.integers(0, min(info.id_bounds, default=2), sized.shape).astype(kind)
    return made
