"""Let LoadGen drive a session, in the process that holds it: the system under test and the library of samples."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from device_tests.input_sets import read_calls
from device_tests.loadgen_settings import MULTI_STREAM_SAMPLES, PERCENTILES, LoadGenSettings
from device_tests.loadgen_stopping import least_queries
from edge_deploy.core.artifact import Signature
from edge_deploy.core.clock import Clock
from edge_deploy.core.errors import BadInput, EdgeDeployError, ToolchainError
from edge_deploy.core.require import require
from edge_deploy.core.serde import from_json
from runtimes.contracts import Session

__all__ = ["DETAIL", "SUMMARY", "Batcher", "read_detail", "run_loadgen"]

SUMMARY, DETAIL, ACCURACY = "mlperf_log_summary.txt", "mlperf_log_detail.txt", "mlperf_log_accuracy.json"
SCENARIO_NAMES = {
    "single-stream": "SingleStream",
    "multi-stream": "MultiStream",
    "server": "Server",
    "offline": "Offline",
}
# Samples that LoadGen may hold at once; what it holds is in memory anyway.
MOST_SAMPLES_AT_ONCE = 1024
PREFLIGHT_S = 2.0
# LoadGen lays queries out in advance by this many times the measured speed, and complains when they run out.
HEADROOM = 3.0
KEPT_LATENCIES = 100_000
PREFIX = ":::MLLOG "


class Batcher:
    """The samples of a library, run in batches as the signature takes them.

    Args:
        sets: Inputs of one call each, as the signature describes them; all rows along the batch are samples.
    """

    def __init__(self, session: Session, sets: Sequence[Mapping[str, np.ndarray]]) -> None:
        if not sets:
            raise BadInput("loadgen: no sample.")
        self._session = session
        self.batch = _batch(session.signature)
        self._sets = sets
        self.count = len(sets) * self.batch
        self._output = session.signature.outputs[0].name

    def answer(self, samples: Sequence[int]) -> list[np.ndarray]:
        """The first output's values for each sample, in their order."""
        found: list[np.ndarray] = []
        for at in range(0, len(samples), self.batch):
            part = list(samples[at : at + self.batch])
            values = self._session.run(self._inputs(part))[self._output]
            found += [values] if self.batch == 1 else list(values[: len(part)])
        return found

    def _inputs(self, samples: list[int]) -> Mapping[str, np.ndarray]:
        if self.batch == 1:
            return self._sets[samples[0]]
        # A batch that is not full is filled with its last sample.
        full = samples + samples[-1:] * (self.batch - len(samples))
        places = [divmod(sample, self.batch) for sample in full]
        return {name: np.stack([self._sets[n][name][row] for n, row in places]) for name in self._sets[0]}


def _batch(signature: Signature) -> int:
    sizes = {info.shape[0] if info.shape else 0 for info in (*signature.inputs, *signature.outputs[:1])}
    return max(sizes) if len(sizes) == 1 and max(sizes) > 1 else 1


class _UnderTest:
    """What LoadGen calls: answers queries at once, or (server) one after the other from a queue.

    An exception must not travel through LoadGen's frames; the first one is kept and raised afterwards.
    """

    def __init__(self, lg: Any, batcher: Batcher, clock: Clock, *, queued: bool, keep_answers: bool) -> None:
        self._lg, self._batcher, self._clock, self._keep = lg, batcher, clock, keep_answers
        self._waiting: queue.SimpleQueue[list[Any] | None] = queue.SimpleQueue()
        self.failure: Exception | None = None
        self.latencies_s: list[float] = []
        self._thread = threading.Thread(target=self._serve, daemon=True) if queued else None
        if self._thread is not None:
            self._thread.start()

    def issue(self, samples: list[Any]) -> None:
        if self._thread is not None:
            self._waiting.put(list(samples))
            return
        start = self._clock.now_s()
        answered = self._complete(samples)
        if len(self.latencies_s) < KEPT_LATENCIES:
            self.latencies_s.append(answered - start)

    def close(self) -> None:
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join(timeout=60)

    def _serve(self) -> None:
        while (samples := self._waiting.get()) is not None:
            # Queries that wait while a batch has room go along.
            while len(samples) < self._batcher.batch and not self._waiting.empty():
                more = self._waiting.get()
                if more is None:
                    self._complete(samples)
                    return
                samples += more
            self._complete(samples)

    def _complete(self, samples: Sequence[Any]) -> float:
        """Answer and hand the answers over; when they were there."""
        answers: list[np.ndarray] = []
        if self.failure is None:
            try:
                answers = self._batcher.answer([sample.index for sample in samples])
            except Exception as error:  # noqa: BLE001  # see the class: it is raised when LoadGen has ended
                self.failure = error
        answered = self._clock.now_s()
        if not answers or not self._keep:
            self._lg.QuerySamplesComplete([self._lg.QuerySampleResponse(sample.id, 0, 0) for sample in samples])
            return answered
        kept = [np.ascontiguousarray(answer, np.float32) for answer in answers]
        self._lg.QuerySamplesComplete(
            [
                self._lg.QuerySampleResponse(sample.id, answer.ctypes.data, answer.nbytes)
                for sample, answer in zip(samples, kept, strict=True)
            ]
        )
        return answered


def run_loadgen(
    session: Session,
    sets: Sequence[Mapping[str, np.ndarray]],
    clock: Clock,
    *,
    settings: Mapping[str, Any],
    logs: str,
    inputs: str | None = None,
) -> dict[str, Any]:
    """One run of LoadGen on this session; its logs stand in the folder `logs` afterwards.

    Args:
        sets: Samples to send where `inputs` names none.
        settings: A `LoadGenSettings` as JSON values.
        inputs: An npz with arrays [calls, *shape] by name, as the signature describes them.

    Returns:
        `results` (what the detail log says), `samples`, `batch`, `latencies_s` (of queries that were answered as they
        came: raw, up to 100,000) and `alone_s`, the time of one inference before the run.

    Raises:
        MissingExtra: LoadGen is not installed.
        BadInput: The samples do not fit.
    """
    lg = require("mlperf_loadgen", extra="loadgen")
    wish = from_json(LoadGenSettings, dict(settings), where="loadgen settings")
    batcher = Batcher(session, read_calls(Path(inputs), session.signature) if inputs is not None else sets)
    alone_s = _preflight(batcher, clock)
    folder = Path(logs)
    folder.mkdir(parents=True, exist_ok=True)
    accuracy = wish.mode == "accuracy"
    tested = _UnderTest(lg, batcher, clock, queued=wish.scenario == "server", keep_answers=accuracy)
    sut = lg.ConstructSUT(tested.issue, _nothing)
    qsl = lg.ConstructQSL(batcher.count, min(batcher.count, MOST_SAMPLES_AT_ONCE), _ignore, _ignore)
    try:
        lg.StartTestWithLogSettings(sut, qsl, _test_settings(lg, wish, alone_s), _log_settings(lg, folder))
    finally:
        tested.close()
        lg.DestroyQSL(qsl)
        lg.DestroySUT(sut)
    if tested.failure is not None:
        if isinstance(tested.failure, EdgeDeployError):
            raise tested.failure
        raise ToolchainError(f"loadgen: inference failed: {tested.failure}") from tested.failure
    return {
        "results": read_detail(folder / DETAIL),
        "samples": batcher.count,
        "batch": batcher.batch,
        "alone_s": alone_s,
        "latencies_s": [] if accuracy or wish.scenario == "offline" else [round(x, 9) for x in tested.latencies_s],
    }


def read_detail(path: Path) -> dict[str, Any]:
    """What a detail log says: results, effective settings, early stopping, errors.

    Raises:
        ToolchainError: LoadGen wrote no result.
    """
    found: dict[str, Any] = {}
    errors = []
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise ToolchainError(f"loadgen: wrote no {path.name} ({error.strerror}).") from error
    for line in lines:
        if not line.startswith(PREFIX):
            continue
        try:
            entry = json.loads(line.removeprefix(PREFIX))
        except ValueError:
            continue  # a line that LoadGen could not finish
        key = entry["key"]
        if entry["metadata"].get("is_error"):
            errors.append(str(entry["value"]))
        if key.startswith(("result_", "early_stopping_", "effective_")) or key in ("loadgen_version", "num_errors"):
            found[key] = entry["value"]
    if "effective_scenario" not in found:
        raise ToolchainError(f"loadgen: {path.name} holds no result; it was interrupted.")
    found["errors"] = errors
    return found


def _preflight(batcher: Batcher, clock: Clock) -> float:
    """Run samples before LoadGen does: warm, and what cannot run fails here; the median seconds of a call."""
    times: list[float] = []
    begin = clock.now_s()
    while len(times) < 3 or (len(times) < batcher.count and clock.now_s() - begin < PREFLIGHT_S):
        start = clock.now_s()
        batcher.answer([len(times) % batcher.count])
        times.append(clock.now_s() - start)
    return float(np.median(times))


def _test_settings(lg: Any, wish: LoadGenSettings, alone_s: float) -> Any:
    made = lg.TestSettings()
    made.scenario = getattr(lg.TestScenario, SCENARIO_NAMES[wish.scenario])
    made.mode = lg.TestMode.AccuracyOnly if wish.mode == "accuracy" else lg.TestMode.PerformanceOnly
    offline = wish.scenario == "offline"
    made.min_query_count = wish.length.offline_samples if offline else least_queries_of(wish)
    made.min_duration_ms = round(wish.length.least_s * 1000)
    made.max_duration_ms = round(wish.length.most_s * 1000)
    expected_ns = max(alone_s / HEADROOM, 1e-7) * 1e9
    made.single_stream_expected_latency_ns = round(expected_ns)
    made.single_stream_target_latency_percentile = PERCENTILES["single-stream"]
    made.multi_stream_samples_per_query = MULTI_STREAM_SAMPLES
    made.multi_stream_expected_latency_ns = round(expected_ns * MULTI_STREAM_SAMPLES)
    made.multi_stream_target_latency_percentile = PERCENTILES["multi-stream"]
    made.offline_expected_qps = 1.2 / alone_s
    if wish.scenario == "server":
        made.server_target_qps = wish.qps
        made.server_target_latency_ns = round(wish.latency_limit_s * 1e9)
        made.server_target_latency_percentile = PERCENTILES["server"]
    made.qsl_rng_seed = made.sample_index_rng_seed = made.schedule_rng_seed = wish.seed
    return made


def least_queries_of(wish: LoadGenSettings) -> int:
    """Of the run length, but never fewer than the scenario's percentile can be stated of: 662 for the 99th."""
    return max(wish.length.queries, least_queries(PERCENTILES[wish.scenario]))


def _log_settings(lg: Any, folder: Path) -> Any:
    output = lg.LogOutputSettings()
    output.outdir = str(folder)
    output.copy_summary_to_stdout = False
    made = lg.LogSettings()
    made.log_output = output
    made.enable_trace = False
    return made


def _nothing() -> None:
    return None


def _ignore(samples: list[int]) -> None:
    """Samples are in memory already."""
