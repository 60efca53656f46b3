"""LoadGen on a device: push the model and its samples, let LoadGen drive the session there, bring its logs back."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from device_tests.benchmark_subject import Subject, check_fit, read_subject
from device_tests.benchmark_turn import LOAD_TIMEOUT_S, Turn, ask, ask_if_known
from device_tests.contracts import Transport
from device_tests.device_list import connect, find_device
from device_tests.loadgen_run import ACCURACY, DETAIL, SUMMARY
from device_tests.loadgen_settings import LENGTHS, PERCENTILES, LoadGenSettings
from device_tests.loadgen_stopping import early_stopping_s
from device_tests.protocol_cpus import parse_cpus
from edge_deploy.core.benchmark import Machine, Provenance, RunConditions
from edge_deploy.core.device import Device
from edge_deploy.core.digest import file_sha256
from edge_deploy.core.errors import Unsupported
from edge_deploy.core.serde import from_json, to_json, write_json

__all__ = ["LOADGEN", "LoadGenReport", "LoadGenRun", "loadgen"]

LOADGEN = "loadgen.json"
MARGIN_S = 300.0
# The search for a server's rate: short runs, each keeping the better half, until the bracket is this narrow.
SEARCH_RUNS = 8
SEARCH_WIDTH = 1.1
STEP_DOWN = 0.8
MOST_RATES = SEARCH_RUNS + 4
SEARCH_LENGTH = replace(LENGTHS["rapid"], least_s=3.0, most_s=20.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadGenReport:
    """One run of LoadGen: the content of `loadgen.json`, beside LoadGen's own logs. No MLPerf result.

    Attributes:
        results: What LoadGen's detail log says, by its keys: result_validity, early stopping, percentiles, errors.
        samples: In the library that queries draw from.
        latencies_s: Raw, of queries that were answered as they came (single and multi stream), up to 100,000.
        alone_s: Median of one inference before the run.
        searched_qps: Rates that were tried for the server scenario, each with whether it kept the limit.
    """

    artifact: str
    format: str
    recipe: str
    sha256: str
    model_bytes: int
    device: Device
    machine: Machine
    conditions: RunConditions
    provenance: Provenance
    settings: LoadGenSettings
    results: dict[str, Any]
    samples: int
    alone_s: float
    latencies_s: tuple[float, ...] = ()
    searched_qps: tuple[tuple[float, bool], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def valid(self) -> bool:
        """As LoadGen judges; an accuracy run has nothing to be judged but its errors."""
        if self.settings.mode == "accuracy":
            return not self.results.get("errors")
        return bool(self.results.get("result_validity") == "VALID")

    def headline(self) -> tuple[str, float]:
        """The scenario's own figure: what it is, and its value in seconds or samples a second."""
        results = self.results
        if self.settings.mode == "accuracy":
            return "samples answered", float(self.samples)
        if self.settings.scenario == "offline":
            return "samples/s", float(results.get("result_samples_per_second", math.nan))
        if self.settings.scenario == "server":
            return "queries/s within the limit", float(results.get("result_completed_samples_per_sec", math.nan))
        percentile = PERCENTILES[self.settings.scenario]
        key = "early_stopping_latency_ss" if self.settings.scenario == "single-stream" else "early_stopping_latency_ms"
        stated = float(results.get(key, 0)) / 1e9
        return f"p{percentile * 100:.0f} with 99 % confidence, s", stated or math.nan

    def own_estimate_s(self) -> float | None:
        """Early stopping computed here from the raw latencies: it must agree with LoadGen's; None without them."""
        return early_stopping_s(self.latencies_s, PERCENTILES[self.settings.scenario]) if self.latencies_s else None


class LoadGenRun:
    """A model that is loaded on a device, ready for runs of LoadGen.

    Args:
        samples: Arrays [calls, *shape] by input name, as the model takes them; None takes random ones.
        logs: Folder on this machine for LoadGen's logs.
    """

    def __init__(
        self, turn: Turn, transport: Transport, *, samples: Mapping[str, np.ndarray] | None, logs: Path
    ) -> None:
        self._turn, self._transport, self.logs = turn, transport, logs
        with tempfile.TemporaryDirectory(prefix="edge-deploy-loadgen-") as scratch:
            given = Path(scratch, "samples.npz")
            with given.open("wb") as file:
                np.savez(file, **(samples or {}))  # type: ignore[arg-type]  # names of inputs
            there = transport.push(given, "loadgen/samples.npz")
        self._inputs = there if samples else None
        self._folder = there.removesuffix("/samples.npz")

    def run(self, settings: LoadGenSettings) -> dict[str, Any]:
        """One run; LoadGen's logs are in `logs` afterwards.

        Raises:
            Unsupported: The device runs no Python, in which LoadGen lives.
            MissingExtra: LoadGen is not installed there.
        """
        request = {"do": "loadgen", "settings": to_json(settings), "logs": self._folder, "inputs": self._inputs}
        told = ask_if_known(self._turn, request, timeout_s=2 * settings.length.most_s + MARGIN_S)
        if told is None:
            raise Unsupported(
                f"{self._turn.subject.path}: this device runs no Python, in which LoadGen would drive the model; "
                "measure it with edge-deploy benchmark."
            )
        self.logs.mkdir(parents=True, exist_ok=True)
        for name in (SUMMARY, DETAIL, ACCURACY):
            self._transport.pull(f"loadgen/{name}", self.logs / name)
        answer: dict[str, Any] = told
        return answer

    def find_rate(
        self, settings: LoadGenSettings, alone_s: float, say: Callable[[str], None]
    ) -> tuple[float, tuple[tuple[float, bool], ...]]:
        """The highest of the tried rates at which a short server run keeps the limit, and all that were tried."""
        low, high = 0.0, 1.0 / alone_s
        rate, tried = 0.5 * high, []
        for _ in range(SEARCH_RUNS):
            found = self.run(replace(settings, qps=rate, length=SEARCH_LENGTH))["results"]
            # Not validity: a slow model has too few queries in a short run to be sure of its percentile.
            good = bool(found.get("result_perf_constraints_met"))
            say(f"server: {rate:.4g} queries/s: {'within' if good else 'over'} the limit")
            tried.append((rate, good))
            low, high = (rate, high) if good else (low, rate)
            if low and high / low < SEARCH_WIDTH:
                break
            rate = math.sqrt(low * high) if low else high / 4
        return low or rate, tuple(tried)


def loadgen(
    artifact: Path,
    settings: LoadGenSettings,
    *,
    out: Path,
    device: str = "host",
    samples: Callable[[Subject], Mapping[str, np.ndarray]] | None = None,
    samples_name: str = "",
    inputs: Path | None = None,
    search_rate: bool = False,
    threads: int = 1,
    backend: str | None = None,
    signature: str | None = None,
    kernels: str = "default",
    cpus: str = "auto",
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> LoadGenReport:
    """Let LoadGen measure an artifact on a device; its logs and `loadgen.json` stand in `out`.

    Args:
        samples: Makes arrays [calls, *shape] by input name, as the model takes them; None takes `inputs` or random
            ones. `samples_name` says for the report where they come from.
        inputs: An npz file in the source model's terms.
        search_rate: First find the server scenario's rate; the settings' own is then not used.

    Raises:
        BadInput: No such device or file, or samples that do not fit.
        Unsupported: The device cannot run LoadGen.
        MissingExtra: LoadGen is not installed: the extra `loadgen` brings it.
    """
    say = progress or (lambda line: None)
    parse_cpus(cpus)
    where = find_device(device)
    subject = read_subject(artifact)
    check_fit([subject], where)
    with ExitStack() as stack:
        transport = connect(where)
        stack.callback(transport.close)
        pushed_inputs = transport.push(inputs, "inputs.npz") if inputs is not None else None
        pushed = [transport.push(file, f"0/{name}", sha256=digest) for file, name, digest in subject.files]
        environment = {"OMP_NUM_THREADS": str(threads), "TF_CPP_MIN_LOG_LEVEL": "3"}
        channel = stack.enter_context(closing(transport.run("device_tests.worker", environment=environment)))
        path = str(Path(pushed[0]).parent) if subject.is_folder else pushed[0]
        turn = Turn(subject=subject, channel=channel, path=path)
        wish = parse_cpus(cpus)
        pinned: Any = None
        if wish != "none":
            request = {"do": "pin", "cpus": None if wish == "auto" else list(wish), "count": threads}
            pinned = ask_if_known(turn, request, timeout_s=LOAD_TIMEOUT_S)
        say(f"{subject.name} {subject.recipe}: load")
        load = {
            "do": "load",
            "path": path,
            "backend": backend,
            "signature": signature,
            "threads": threads,
            "kernels": kernels,
            "seed": seed,
            "inputs": pushed_inputs,
            "source": to_json(subject.source),
        }
        begun = ask(turn, load, timeout_s=LOAD_TIMEOUT_S)
        prepared = LoadGenRun(turn, transport, samples=samples(subject) if samples else None, logs=out)
        searched: tuple[tuple[float, bool], ...] = ()
        if search_rate:
            single = LoadGenSettings(scenario="single-stream", length=replace(SEARCH_LENGTH, least_s=0.5))
            alone_s = prepared.run(single)["alone_s"]
            qps, searched = prepared.find_rate(settings, alone_s, say)
            settings = replace(settings, qps=qps)
        say(f"{subject.name} {subject.recipe}: {settings.scenario}, {settings.mode}")
        told = prepared.run(settings)
        # A whole run meets moments that short ones missed: step down until one is valid.
        while search_rate and told["results"].get("result_validity") != "VALID" and len(searched) < MOST_RATES:
            searched += ((settings.qps, False),)
            settings = replace(settings, qps=settings.qps * STEP_DOWN)
            say(f"{subject.name} {subject.recipe}: not valid; {settings.qps:.4g} queries/s")
            told = prepared.run(settings)
    origin = samples_name or ("the given npz file" if inputs is not None else f"random, seed {seed}")
    report = LoadGenReport(
        artifact=subject.name,
        format=subject.format,
        recipe=subject.recipe,
        sha256=subject.sha256,
        model_bytes=subject.model_bytes,
        device=where,
        machine=from_json(Machine, begun["machine"], where="machine"),
        conditions=RunConditions(
            threads=threads,
            kernels=begun["kernels"],
            batch=begun["batch"],
            signature=begun["signature"],
            inputs=origin,
            input_sets=told["samples"],
            inputs_sha256="" if inputs is None else file_sha256(inputs),
            cpus=() if pinned is None else tuple(pinned["cpus"]),
        ),
        provenance="emulated" if where.kind == "emulated" else "measured",
        settings=settings,
        results=told["results"],
        samples=told["samples"],
        alone_s=told["alone_s"],
        latencies_s=tuple(told["latencies_s"]),
        searched_qps=searched,
        notes=tuple(begun["notes"]),
    )
    write_json(report, out / LOADGEN)
    return report
