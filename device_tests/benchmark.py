"""The benchmark protocol: artifacts take turns on one device, each in its own process; raw values come back.

Every worker is bound to CPUs, and before each round a gate looks whether the machine is idle and cool.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np

from device_tests.benchmark_subject import Subject, check_fit, read_subject
from device_tests.benchmark_turn import LOAD_TIMEOUT_S, RUN_TIMEOUT_S, Turn, ask, ask_if_known
from device_tests.device_list import connect, find_device
from device_tests.protocol_cpus import parse_cpus
from device_tests.protocol_gates import Gate, gate_doubts, pass_gate
from edge_deploy.core.benchmark import BenchmarkReport, Machine, MachineState, MemoryKinds, RunConditions
from edge_deploy.core.clock import SystemClock
from edge_deploy.core.device import Device
from edge_deploy.core.digest import file_sha256
from edge_deploy.core.errors import BadInput
from edge_deploy.core.serde import from_json, to_json

__all__ = [
    "LOAD_TIMEOUT_S",
    "RUN_TIMEOUT_S",
    "Subject",
    "Turn",
    "ask",
    "benchmark",
    "check_fit",
    "measure_in_turns",
    "read_subject",
]

PROFILED = {"runs": 10, "repeats": 5}
GATE_WINDOW_S = 0.1


def benchmark(
    artifacts: Sequence[Path],
    *,
    device: str = "host",
    against: Sequence[Path] = (),
    threads: int = 1,
    backend: str | None = None,
    signature: str | None = None,
    kernels: str = "default",
    inputs: Path | None = None,
    min_seconds: float = 1.0,
    runs: int = 60,
    rounds: int = 12,
    seed: int = 0,
    cpus: str = "auto",
    gate: Gate | None = None,
    progress: Callable[[str], None] | None = None,
) -> tuple[BenchmarkReport, ...]:
    """Measure artifacts on a device, interleaved A B A B, and return one report each, those of `against` last.

    Args:
        artifacts: Folders that convert wrote, or bare `.tflite`, `.pte` and other model files.
        device: Name of a device, or path of its TOML file.
        backend: Name of a runtime in `runtimes.backends`; None for the one of the file's type.
        inputs: An npz file in the source model's terms (a bare file's own); absent: random inputs that fit.
        min_seconds: Measured time to aim at for each artifact, over all rounds.
        runs: Least number of raw values for each artifact, over all rounds.
        rounds: Turns that the artifacts take; comparing needs at least 6.
        seed: Of the random inputs and of the order within each round.
        cpus: That the workers are bound to: "auto" (as many as threads, the fastest), "none", or e.g. "0,2-3".
        gate: What the machine must be before each round; None flags a busy or hot one in the report.
        progress: Called with a line for the user.

    Raises:
        BadInput: No such device or file, or an option out of range.
        DeviceError: A process that ran a model died; names the signal. Or the gate refuses.
    """
    problems = [
        f"{name} = {value}: must be at least {least}."
        for name, value, least in (("threads", threads, 1), ("runs", runs, 1), ("rounds", rounds, 1))
        if value < least
    ]
    if min_seconds < 0:
        problems.append(f"min_seconds = {min_seconds}: must not be negative.")
    if not artifacts:
        problems.append("benchmark: no artifact given.")
    if problems:
        raise BadInput(*problems)
    parse_cpus(cpus)
    where = find_device(device)
    subjects = [read_subject(path) for path in (*artifacts, *against)]
    check_fit(subjects, where)
    with ExitStack() as stack:
        transport = connect(where)
        stack.callback(transport.close)
        pushed_inputs = transport.push(inputs, "inputs.npz") if inputs is not None else None
        turns = []
        for number, subject in enumerate(subjects):
            pushed = [transport.push(file, f"{number}/{name}", sha256=digest) for file, name, digest in subject.files]
            environment = {"OMP_NUM_THREADS": str(threads), "TF_CPP_MIN_LOG_LEVEL": "3"}
            channel = stack.enter_context(closing(transport.run("device_tests.worker", environment=environment)))
            path = str(Path(pushed[0]).parent) if subject.is_folder else pushed[0]
            turns.append(Turn(subject=subject, channel=channel, path=path))
        return measure_in_turns(
            turns,
            device=where,
            threads=threads,
            backend=backend,
            signature=signature,
            kernels=kernels,
            inputs=pushed_inputs,
            inputs_sha256="" if inputs is None else file_sha256(inputs),
            min_seconds=min_seconds,
            runs=runs,
            rounds=rounds,
            seed=seed,
            cpus=cpus,
            gate=gate or Gate(),
            progress=progress,
        )


def measure_in_turns(
    turns: Sequence[Turn],
    *,
    device: Device,
    threads: int,
    backend: str | None,
    signature: str | None,
    kernels: str,
    inputs: str | None,
    min_seconds: float,
    runs: int,
    rounds: int,
    seed: int,
    inputs_sha256: str = "",
    cpus: str = "none",
    gate: Gate | None = None,
    progress: Callable[[str], None] | None = None,
) -> tuple[BenchmarkReport, ...]:
    """Load and warm up one worker after the other, then let them take turns, in a new random order each round.

    Only one worker runs at any time; the others wait for their next request.
    """
    say = progress or (lambda line: None)
    gate = gate or Gate(policy="off")
    loaded: list[dict[str, Any]] = []
    warmed: list[dict[str, Any]] = []
    bound: list[tuple[int, ...]] = []
    for turn in turns:
        say(f"{turn.subject.name} {turn.subject.recipe}: load and warm up")
        bound.append(_bind(turn, cpus, threads))
        load = {
            "do": "load",
            "path": turn.path,
            "backend": backend,
            "signature": signature,
            "threads": threads,
            "kernels": kernels,
            "seed": seed,
            "inputs": inputs,
            "source": to_json(turn.subject.source),
        }
        loaded.append(ask(turn, load, timeout_s=LOAD_TIMEOUT_S))
        wish = {"do": "warm", "rounds": rounds, "runs": runs, "min_seconds": min_seconds}
        warmed.append(ask(turn, wish, timeout_s=RUN_TIMEOUT_S))
    values: list[list[tuple[float, ...]]] = [[] for _ in turns]
    order = np.random.default_rng(seed)
    states: list[MachineState] = []
    waited_s = 0.0
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        state, waited_s = pass_gate(
            gate, lambda: _machine_state(turns[0]), SystemClock(), waited_s=waited_s, pause=time.sleep
        )
        states += [state] if state is not None else []
        for index in (int(index) for index in order.permutation(len(turns))):
            plan = {key: warmed[index][key] for key in ("values_per_round", "calls_per_value")}
            answer = ask(turns[index], {"do": "measure", **plan}, timeout_s=RUN_TIMEOUT_S)
            values[index].append(tuple(answer["values_s"]))
    group = uuid.uuid4().hex
    reports = []
    for turn, begun, warm, rounds_s, pinned in zip(turns, loaded, warmed, values, bound, strict=True):
        # Memory is read before the layers are profiled, because a profiler keeps what it sees.
        ended = ask(turn, {"do": "state"}, timeout_s=RUN_TIMEOUT_S)
        layer_s = ask(turn, {"do": "layers", **PROFILED}, timeout_s=RUN_TIMEOUT_S)["layer_s"]
        machine = from_json(Machine, begun["machine"], where="machine")
        reports.append(
            BenchmarkReport(
                artifact=turn.subject.name,
                format=turn.subject.format,
                recipe=turn.subject.recipe,
                sha256=turn.subject.sha256,
                model_bytes=turn.subject.model_bytes,
                device=device,
                machine=machine,
                conditions=RunConditions(
                    threads=threads,
                    kernels=begun["kernels"],
                    batch=begun["batch"],
                    signature=begun["signature"],
                    inputs=f"random, seed {seed}" if inputs is None else "the given npz file",
                    input_sets=begun["input_sets"],
                    calls_per_value=warm["calls_per_value"],
                    inputs_sha256=inputs_sha256,
                    cpus=pinned,
                ),
                provenance="emulated" if device.kind == "emulated" else "measured",
                group=group,
                load_s=begun["load_s"],
                warm_up_s=tuple(warm["values_s"]),
                rounds_s=tuple(rounds_s),
                base_rss_bytes=begun["base_rss_bytes"],
                peak_rss_bytes=ended["peak_rss_bytes"],
                load_average_before=tuple(begun["load_average"]),
                load_average_after=tuple(ended["load_average"]),
                layer_s=layer_s or {},
                layer_source="profiler" if layer_s else "none",
                notes=(
                    *begun["notes"],
                    *_doubts(machine, begun["load_average"], steady=warm["steady"]),
                    *gate_doubts(gate, tuple(states), waited_s=waited_s),
                ),
                memory_base=_kinds(begun.get("memory_base")),
                memory_peak=_larger(_kinds(begun.get("memory_peak")), _kinds(ended.get("memory_peak"))),
                states=tuple(states),
                arena_bytes=begun.get("arena_bytes"),
            )
        )
    return tuple(reports)


def _bind(turn: Turn, cpus: str, threads: int) -> tuple[int, ...]:
    """The CPUs that the worker will run on; empty where it is free to choose, or cannot be bound."""
    wish = parse_cpus(cpus)
    if wish == "none":
        return ()
    request = {"do": "pin", "cpus": None if wish == "auto" else list(wish), "count": threads}
    told = ask_if_known(turn, request, timeout_s=LOAD_TIMEOUT_S)
    return () if told is None else tuple(told["cpus"])


def _machine_state(turn: Turn) -> MachineState | None:
    told = ask_if_known(turn, {"do": "conditions", "window_s": GATE_WINDOW_S}, timeout_s=LOAD_TIMEOUT_S)
    return None if told is None else from_json(MachineState, told["state"], where="state")


def _kinds(told: Any) -> MemoryKinds | None:
    return None if told is None else from_json(MemoryKinds, told, where="memory")


def _larger(one: MemoryKinds | None, other: MemoryKinds | None) -> MemoryKinds | None:
    if one is None or other is None:
        return one or other
    return MemoryKinds(
        anonymous_bytes=max(one.anonymous_bytes, other.anonymous_bytes),
        mapped_bytes=max(one.mapped_bytes, other.mapped_bytes),
        shared_bytes=max(one.shared_bytes, other.shared_bytes),
    )


def _doubts(machine: Machine, load: Sequence[float], *, steady: bool) -> tuple[str, ...]:
    """What a reader should know before trusting the values."""
    doubts = []
    if not steady:
        doubts.append("warm-up ended before the latency was steady within 5 %")
    if load and load[0] > machine.cores:
        doubts.append(f"the machine was busy: load average above {machine.cores} on {machine.cores} cores")
    return tuple(doubts)
