"""The process that loads and runs one artifact on the device: one JSON request a line in, one answer a line out.

`device_tests.contracts.Channel` lists the requests. This worker answers some more, which a benchmark can do without:
`pin` (binds the process to CPUs), `conditions` (load, temperature, clock), `codecs` and `loadgen`.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from device_tests.input_sets import InputSet, npz_input_sets, random_input_sets, read_calls, unbounded_ids
from device_tests.loadgen_run import run_loadgen
from device_tests.timing import Plan, plan_runs, take_values, warm_up
from edge_deploy.core.clock import Clock, SystemClock, resolution_s
from edge_deploy.core.errors import BadInput, EdgeDeployError, MissingExtra, error_to_json
from edge_deploy.core.serde import from_json, to_json
from edge_deploy.core.tensor import TensorInfo
from runtimes.codec_speed import codec_s_per_byte
from runtimes.contracts import Session
from runtimes.probes.machine import load_average, peak_rss_bytes, read_machine
from runtimes.probes.memory import memory_now, watched
from runtimes.probes.state import pick_cpus, read_state

__all__ = ["Answers", "Worker", "serve"]

# While others had their turn the caches were theirs.
RUNS_BEFORE_A_TURN = 2
RUNS_UNDER_WATCH = 3


class Worker:
    """Answers requests about one artifact: pin, load, conditions, warm, measure, infer, layers, codecs, loadgen, state.

    Args:
        open_session: Makes the session; takes the keyword arguments of `runtimes.session.open_session`.
    """

    def __init__(self, open_session: Callable[..., Session], clock: Clock) -> None:
        self._open_session = open_session
        self._clock = clock
        self._session: Session | None = None
        self._sets: tuple[InputSet, ...] = ()
        self._cpus: tuple[int, ...] = ()
        self._all_cpus: set[int] = set()

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """One answer, of plain JSON values.

        Raises:
            BadInput: No such request, or nothing is loaded yet.
        """
        asked = request["do"]
        known: dict[str, Callable[..., dict[str, Any]]] = {
            "load": self._load,
            "warm": self._warm,
            "measure": self._measure,
            "layers": self._layers,
            "codecs": self._codecs,
            "state": self._state,
            "infer": self._infer,
            "pin": self._pin,
            "conditions": self._conditions,
            "loadgen": self._loadgen,
        }
        if asked not in known:
            raise BadInput(f"worker request {asked!r}: must be one of {', '.join(known)}.")
        return known[asked](**{key: value for key, value in request.items() if key != "do"})

    def _load(
        self,
        *,
        path: str,
        backend: str | None,
        signature: str | None,
        threads: int,
        kernels: str,
        seed: int,
        inputs: str | None,
        source: list[dict[str, Any]],
    ) -> dict[str, Any]:
        base, base_kinds, machine = peak_rss_bytes(), memory_now(), read_machine()
        with watched() as end:
            self._bind(self._cpus)
            start = self._clock.now_s()
            # Trusted, because this process is already the child that a damaged file may take down with it.
            session = self._open_session(
                Path(path), backend=backend, signature=signature, threads=threads, kernels=kernels, trusted=True
            )
            load_s = self._clock.now_s() - start
            peak_kinds = end()
        notes = []
        if inputs is None:
            self._sets = random_input_sets(session.signature, seed=seed)
            notes = [
                f"input {name}: zeros, because nothing says how large its values may be"
                for name in unbounded_ids(session.signature)
            ]
        else:
            infos = tuple(from_json(TensorInfo, info, where="source input") for info in source)
            self._sets = npz_input_sets(Path(inputs), session.signature, infos)
        self._session = session
        shapes = [info.shape for info in session.signature.inputs if info.shape]
        return {
            "machine": to_json(machine),
            "cpus": list(self._cpus),
            "memory_base": to_json(base_kinds),
            "memory_peak": to_json(peak_kinds),
            "arena_bytes": getattr(getattr(session, "arena", None), "total_bytes", None),
            "load_average": load_average(),
            "load_s": load_s,
            "base_rss_bytes": base,
            "signature": session.signature.name,
            "batch": max(shapes[0][0], 1) if shapes else 1,
            "kernels": session.kernels,
            "input_sets": len(self._sets),
            "notes": notes,
        }

    def _warm(self, *, rounds: int, runs: int, min_seconds: float) -> dict[str, Any]:
        warm = warm_up(self._run, self._clock)
        last = float(np.median(warm.values_s[-5:]))
        plan = plan_runs(last, resolution_s(self._clock), rounds=rounds, runs=runs, min_seconds=min_seconds)
        return {
            "values_s": _rounded(warm.values_s),
            "steady": warm.steady,
            "values_per_round": plan.values_per_round,
            "calls_per_value": plan.calls_per_value,
        }

    def _measure(self, *, values_per_round: int, calls_per_value: int) -> dict[str, Any]:
        plan = Plan(values_per_round=values_per_round, calls_per_value=calls_per_value)
        for number in range(RUNS_BEFORE_A_TURN):
            self._run(number)
        return {"values_s": _rounded(take_values(self._run, self._clock, plan))}

    def _layers(self, *, runs: int, repeats: int) -> dict[str, Any]:
        # The median of several means: a single interrupted run would spoil one mean, and with it a layer's share.
        seen: list[dict[str, float]] = []
        for number in range(repeats):
            seconds = self._loaded().layer_seconds(self._sets[number % len(self._sets)], runs=runs)
            if seconds is None:
                return {"layer_s": None}
            seen.append(seconds)
        return {"layer_s": {name: float(np.median([one.get(name, 0.0) for one in seen])) for name in seen[0]}}

    def _codecs(self, *, names: list[str]) -> dict[str, Any]:
        found = {}
        for name in names:
            with contextlib.suppress(MissingExtra):  # a compressor that is not installed on the device
                found[name] = list(codec_s_per_byte(name))
        return {"s_per_byte": found}

    def _state(self) -> dict[str, Any]:
        peak = None
        if self._session is not None:
            with watched() as end:
                for number in range(RUNS_UNDER_WATCH):
                    self._run(number)
                peak = end()
        return {"peak_rss_bytes": peak_rss_bytes(), "memory_peak": to_json(peak), "load_average": load_average()}

    def _pin(self, *, cpus: list[int] | None, count: int) -> dict[str, Any]:
        if not hasattr(os, "sched_setaffinity"):
            return {"cpus": []}
        self._all_cpus = set(os.sched_getaffinity(0))
        wanted = tuple(cpus) if cpus is not None else pick_cpus(count)
        foreign = sorted(set(wanted) - self._all_cpus)
        if foreign or not wanted:
            raise BadInput(
                f"cpus {', '.join(map(str, foreign)) or 'none'}: must be among {', '.join(map(str, self._all_cpus))}."
            )
        self._cpus = wanted
        return {"cpus": list(wanted)}

    def _bind(self, cpus: tuple[int, ...]) -> None:
        """Threads that a runtime starts later inherit it."""
        if cpus:
            os.sched_setaffinity(0, cpus)

    def _conditions(self, *, window_s: float = 0.2) -> dict[str, Any]:
        return {"state": to_json(read_state(window_s=window_s)), "cores": len(self._all_cpus) or os.cpu_count() or 1}

    def _infer(self, *, inputs: str, outputs: str) -> dict[str, Any]:
        session = self._loaded()
        rows: dict[str, list[np.ndarray]] = {info.name: [] for info in session.signature.outputs}
        calls = read_calls(Path(inputs), session.signature)
        for call in calls:
            for name, values in session.run(call).items():
                rows[name].append(np.array(values))
        with Path(outputs).open("wb") as file:
            stacked = {name: np.stack(values) for name, values in rows.items()}
            np.savez(file, **stacked)  # type: ignore[arg-type]  # names of outputs
        return {"samples": len(calls)}

    def _loadgen(self, **settings: Any) -> dict[str, Any]:
        return run_loadgen(self._loaded(), self._sets, self._clock, **settings)

    def _run(self, number: int) -> None:
        self._loaded().run(self._sets[number % len(self._sets)])

    def _loaded(self) -> Session:
        if self._session is None:
            raise BadInput("worker: nothing is loaded yet.")
        return self._session


def _rounded(values: tuple[float, ...]) -> list[float]:
    """To 0.1 ns: digits beyond the clock's make reports large and say nothing."""
    return [round(value, 10) for value in values]


class Answers(Protocol):
    """What `serve` asks."""

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """One answer, of plain JSON values."""


def serve(worker: Answers, requests: IO[str], answers: IO[str]) -> None:
    """Answer until the requests end; errors are answers too."""
    for line in requests:
        answer: dict[str, Any]
        try:
            answer = {"value": worker.answer(json.loads(line))}
        except EdgeDeployError as error:
            answer = {"error": error_to_json(error)}
        except Exception as error:  # noqa: BLE001  # whatever a runtime raises becomes our ToolchainError in the parent
            answer = {"failure": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def main() -> None:
    """Serve on standard input and output; what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    from runtimes.session import open_session

    serve(Worker(open_session, SystemClock()), sys.stdin, answers)


if __name__ == "__main__":
    main()
