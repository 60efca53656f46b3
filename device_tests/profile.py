"""Seconds of the whole model and of its layers, and of prefixes of it, measured in turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from device_tests.benchmark import LOAD_TIMEOUT_S, RUN_TIMEOUT_S, Subject, Turn, ask, read_subject
from device_tests.device_list import connect, find_device
from edge_deploy.core.benchmark import Provenance
from edge_deploy.core.errors import BadInput, MissingExtra
from edge_deploy.core.serde import to_json
from runtimes.codecs import codec_names, load_codec

__all__ = ["LayerTimes", "Opened", "measure_layers", "measure_prefixes", "open_turns"]

PROFILED_RUNS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTimes:
    """One model's times, raw by round; a round's whole and layers were measured next to each other.

    Attributes:
        whole_s: Median seconds of one call, by round.
        layer_s: By round: seconds by name as the runtime's profiler gives them, in order of execution; empty where it
            has none.
        load_average: Before and after, over one minute.
        codec_s_per_byte: By name of each codec that computes: seconds of encoding and of decoding a byte there; empty
            where it was not asked for.
    """

    name: str
    sha256: str
    device: str
    provenance: Provenance
    kernels: str
    threads: int
    batch: int
    whole_s: tuple[float, ...]
    layer_s: tuple[dict[str, float], ...] = ()
    load_average: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()
    codec_s_per_byte: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def typical_layer_s(self) -> dict[str, float]:
        """The median over the rounds of each name that every round has; empty without a profiler."""
        if not self.layer_s:
            return {}
        return {name: float(np.median([one.get(name, 0.0) for one in self.layer_s])) for name in self.layer_s[0]}

    def interval_s(self, name: str) -> tuple[float, float]:
        """The lowest and highest of the rounds for one name."""
        values = [one.get(name, 0.0) for one in self.layer_s]
        return min(values), max(values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A model that was loaded and warmed up, ready for its turns."""

    turn: Turn
    loaded: dict[str, Any]
    plan: dict[str, int]

    def whole_s(self) -> float:
        """The median of one round."""
        answer = ask(self.turn, {"do": "measure", **self.plan}, timeout_s=RUN_TIMEOUT_S)
        return float(np.median(answer["values_s"]))

    def mean_s(self) -> float:
        """The mean of one round: under a load that comes and goes a median knows only one of the two states."""
        answer = ask(self.turn, {"do": "measure", **self.plan}, timeout_s=RUN_TIMEOUT_S)
        return float(np.mean(answer["values_s"]))

    def codec_s_per_byte(self) -> dict[str, tuple[float, float]]:
        """How fast the device is at each codec that both sides have; moving bytes is no computing."""
        names = [name for name in codec_names() if _computes(name)]
        answer = ask(self.turn, {"do": "codecs", "names": names}, timeout_s=RUN_TIMEOUT_S)
        return {name: (float(encode), float(decode)) for name, (encode, decode) in answer["s_per_byte"].items()}

    def layer_s(self, runs: int) -> dict[str, float] | None:
        """One pass of the runtime's profiler."""
        answer = ask(self.turn, {"do": "layers", "runs": runs, "repeats": 1}, timeout_s=RUN_TIMEOUT_S)
        found: dict[str, float] | None = answer["layer_s"]
        return found


def open_turns(
    stack: ExitStack,
    paths: Sequence[Path],
    *,
    device: str,
    threads: int,
    signature: str | None,
    rounds: int,
    runs: int,
    min_seconds: float,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[Opened, ...]:
    """Load and warm up each model in a process of its own on the device; the stack ends them.

    Raises:
        BadInput: No such device or model, or an option out of range.
        DeviceError: A process died.
    """
    problems = [
        f"{name} = {value}: must be at least 1."
        for name, value in (("threads", threads), ("rounds", rounds), ("runs", runs))
        if value < 1
    ]
    if problems:
        raise BadInput(*problems)
    where = find_device(device)
    subjects = [read_subject(path) for path in paths]
    transport = connect(where)
    stack.callback(transport.close)
    opened = []
    for number, subject in enumerate(subjects):
        say(f"{subject.name}: load and warm up")
        pushed = [transport.push(file, f"{number}/{name}", sha256=digest) for file, name, digest in subject.files]
        environment = {"OMP_NUM_THREADS": str(threads), "TF_CPP_MIN_LOG_LEVEL": "3"}
        channel = stack.enter_context(closing(transport.run("device_tests.worker", environment=environment)))
        turn = Turn(
            subject=subject, channel=channel, path=str(Path(pushed[0]).parent) if subject.is_folder else pushed[0]
        )
        loaded = ask(turn, _load(subject, turn.path, threads, signature, seed), timeout_s=LOAD_TIMEOUT_S)
        wish = {"do": "warm", "rounds": rounds, "runs": runs, "min_seconds": min_seconds}
        warm = ask(turn, wish, timeout_s=RUN_TIMEOUT_S)
        plan = {key: warm[key] for key in ("values_per_round", "calls_per_value")}
        opened.append(Opened(turn=turn, loaded=loaded, plan=plan))
    return tuple(opened)


def measure_layers(
    path: Path,
    *,
    device: str = "host",
    threads: int = 1,
    signature: str | None = None,
    rounds: int = 6,
    runs: int = 60,
    min_seconds: float = 0.5,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> LayerTimes:
    """The whole and its layers in turns: in each round some plain runs, then a pass of the runtime's profiler.

    Args:
        path: An artifact folder or a model file.
        runs: Least number of plain runs over all rounds.
        min_seconds: Least time of plain runs over all rounds.

    Raises:
        BadInput: No such device or model, or an option out of range.
        DeviceError: The process that ran the model died.
    """
    say = progress or (lambda line: None)
    with ExitStack() as stack:
        (opened,) = open_turns(
            stack,
            [path],
            device=device,
            threads=threads,
            signature=signature,
            rounds=rounds,
            runs=runs,
            min_seconds=min_seconds,
            seed=seed,
            say=say,
        )
        whole: list[float] = []
        layers: list[dict[str, float]] = []
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}")
            whole.append(opened.whole_s())
            found = opened.layer_s(PROFILED_RUNS) if number == 0 or layers else None
            if found is not None:
                layers.append(found)
        say("codecs")
        return _times(opened, device, threads, whole, layers, opened.codec_s_per_byte())


def measure_prefixes(
    whole: Path,
    parts: Sequence[Path],
    *,
    device: str = "host",
    threads: int = 1,
    signature: str | None = None,
    rounds: int = 6,
    runs: int = 60,
    min_seconds: float = 0.5,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> tuple[LayerTimes, ...]:
    """The whole and parts of it in turns, in a new order each round; without times per layer.

    Raises:
        BadInput: No such device or model, or an option out of range.
        DeviceError: A process died.
    """
    say = progress or (lambda line: None)
    with ExitStack() as stack:
        everything = open_turns(
            stack,
            [whole, *parts],
            device=device,
            threads=threads,
            signature=signature,
            rounds=rounds,
            runs=runs,
            min_seconds=min_seconds,
            seed=seed,
            say=say,
        )
        values: list[list[float]] = [[] for _ in everything]
        order = np.random.default_rng(seed)
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}")
            for index in (int(index) for index in order.permutation(len(everything))):
                values[index].append(everything[index].whole_s())
        say("codecs")
        codecs = everything[0].codec_s_per_byte()
        return tuple(
            _times(opened, device, threads, seconds, [], codecs)
            for opened, seconds in zip(everything, values, strict=True)
        )


def _load(subject: Subject, path: str, threads: int, signature: str | None, seed: int) -> dict[str, Any]:
    return {
        "do": "load",
        "path": path,
        "backend": None,
        "signature": signature,
        "threads": threads,
        "kernels": "default",
        "seed": seed,
        "inputs": None,
        "source": to_json(subject.source),
    }


def _times(
    opened: Opened,
    device: str,
    threads: int,
    whole: Sequence[float],
    layers: Sequence[dict[str, float]],
    codecs: dict[str, tuple[float, float]],
) -> LayerTimes:
    where = find_device(device)
    state = ask(opened.turn, {"do": "state"}, timeout_s=RUN_TIMEOUT_S)
    return LayerTimes(
        name=opened.turn.subject.name,
        sha256=opened.turn.subject.sha256,
        device=where.name,
        provenance="emulated" if where.kind == "emulated" else "measured",
        kernels=opened.loaded["kernels"],
        threads=threads,
        batch=opened.loaded["batch"],
        whole_s=tuple(whole),
        layer_s=tuple(layers),
        load_average=(*opened.loaded["load_average"][:1], *state["load_average"][:1]),
        notes=tuple(opened.loaded["notes"]),
        codec_s_per_byte=codecs,
    )


def _computes(codec: str) -> bool:
    try:
        return load_codec(codec).encode_s_per_byte > 0
    except MissingExtra:
        return False
