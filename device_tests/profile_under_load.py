"""How much longer a model takes while others use the CPU or hold memory: levels in turns, each beside an idle run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from device_tests.contention import cpu_load, memory_bound_bytes, memory_load, usable_cores
from device_tests.device_list import find_device
from device_tests.profile import Opened, open_turns
from edge_deploy.core.errors import BadInput, Unsupported
from edge_deploy.core.profile import LoadPoint
from edge_deploy.core.units import format_bytes

__all__ = ["CPU_LEVELS", "MEMORY_LEVELS", "UnderLoad", "measure_under_load"]

CPU_LEVELS = (0.25, 0.5, 0.75, 1.0)
MEMORY_LEVELS = (0.5, 1.0)
# One value lasts so long at least: several periods of the load, and of the scheduler.
LEAST_VALUE_S = 0.25
# Writing to every free page and giving them back takes seconds, so memory takes part in so many rounds only.
MEMORY_ROUNDS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class UnderLoad:
    """Raw points, and how the load was made."""

    points: tuple[LoadPoint, ...]
    notes: tuple[str, ...]


def measure_under_load(
    path: Path,
    *,
    device: str = "host",
    threads: int = 1,
    signature: str | None = None,
    cpu_levels: Sequence[float] = CPU_LEVELS,
    memory_levels: Sequence[float] = MEMORY_LEVELS,
    rounds: int = 6,
    seconds: float = LEAST_VALUE_S,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> UnderLoad:
    """Sweep loads over rounds, the levels in a new order each round; every level has an idle run right before it.

    Memory pressure takes part in the first three rounds.

    The loads end with the call, however it ends. Memory is taken within a margin (`device_tests.contention`), never to
    the point where the machine would run out.

    Args:
        path: An artifact folder or a model file.
        cpu_levels: Shares of every core.
        memory_levels: Shares of the free memory that may safely be taken.
        seconds: Measured time of each value.

    Raises:
        BadInput: A level is not a share above 0, or another option is out of range.
        Unsupported: The device is not this machine.
        DeviceError: The process that ran the model, or a load, died.
    """
    problems = [
        f"load level {level}: must be above 0 and at most 1."
        for level in (*cpu_levels, *memory_levels)
        if not 0 < level <= 1
    ]
    if rounds < 1 or not seconds > 0:
        problems.append(f"rounds = {rounds}, seconds = {seconds}: must be at least 1 and above 0.")
    if problems:
        raise BadInput(*problems)
    where = find_device(device)
    if where.transport != "local":
        raise Unsupported(f"device {where.name}: load can be put on this machine only; run there with --device host.")
    cores = usable_cores()
    tasks = [("cpu", level) for level in cpu_levels]
    tasks += [("cores", busy / len(cores)) for busy in range(1, len(cores))]
    tasks += [("memory", level) for level in memory_levels] if memory_bound_bytes() > 0 else []
    say = progress or (lambda line: None)
    points: list[LoadPoint] = []
    makers: dict[str, None] = {}
    with ExitStack() as stack:
        (opened,) = open_turns(
            stack,
            [path],
            device=device,
            threads=threads,
            signature=signature,
            rounds=1,
            runs=1,
            min_seconds=seconds,
            seed=seed,
            say=say,
        )
        order = np.random.default_rng(seed)
        for number in range(rounds):
            say(f"under load: round {number + 1} of {rounds}")
            for index in order.permutation(len(tasks)):
                what, level = tasks[int(index)]
                if what == "memory" and number >= MEMORY_ROUNDS:
                    continue
                points.append(_one(opened, what, level, number, cores, makers))
    held = format_bytes(memory_bound_bytes())
    notes = [f"load by {', '.join(makers)}; memory pressure 100 % is {held} of the memory that was free"]
    if not any(what == "memory" for what, _ in tasks):
        notes.append("memory pressure was not measured: too little memory is free to take any safely")
    return UnderLoad(points=tuple(points), notes=tuple(notes))


def _one(
    opened: Opened, what: str, level: float, number: int, cores: Sequence[int], makers: dict[str, None]
) -> LoadPoint:
    idle_s = opened.mean_s()
    load: AbstractContextManager[object]
    if what == "cpu":
        load = cpu_load(level)
    elif what == "cores":
        load = cpu_load(1.0, cores=cores[: round(level * len(cores))])
    else:
        load = memory_load(level)
    with load as how:
        seconds = opened.mean_s()
    makers[how if isinstance(how, str) else "held pages"] = None
    return LoadPoint(what=what, at=level, round=number, seconds=seconds, idle_s=idle_s)  # type: ignore[arg-type]  # of tasks
