"""What a benchmark measured: raw values with their conditions. Statistics are functions of it and are never stored."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np

from edge_deploy.core.device import Device
from edge_deploy.core.errors import BadInput

__all__ = [
    "BENCHMARK",
    "BenchmarkReport",
    "Counted",
    "Machine",
    "MachineState",
    "MemoryKinds",
    "Percentiles",
    "Provenance",
    "Ratio",
    "RunConditions",
    "Verdict",
    "median_interval",
    "percentiles",
    "ratio",
    "run_seconds",
    "verdict",
]

BENCHMARK = "benchmark.json"
# The order-statistic interval of a median reaches 95 % from six values on.
LEAST_ROUNDS_FOR_INTERVAL = 6
Provenance: TypeAlias = Literal["measured", "emulated", "estimated"]
Verdict: TypeAlias = Literal["faster", "slower", "not slower", "difference not resolved"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The machine as it was found.

    Attributes:
        features: Instruction set extensions that quantized kernels use, e.g. "avx512_vnni", "asimddp".
        cores: That this process may use.
        governor: Of the CPU's frequency; None where it cannot be read (most virtual machines).
        kernel: Operating system and release.
    """

    cpu_model: str
    isa: str
    features: tuple[str, ...]
    cores: int
    ram_bytes: int
    governor: str | None
    kernel: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineState:
    """The machine at one moment before a turn; None wherever it does not tell.

    Attributes:
        busy_cores: Cores' worth of work that others did, e.g. 0.5 for one core used half of the time.
        temperature_c: Of the hottest zone.
        clock_hz: Of the fastest core at that moment.
        throttled: How often cores were slowed down for heat since the machine started.
    """

    busy_cores: float | None = None
    temperature_c: float | None = None
    clock_hz: float | None = None
    throttled: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryKinds:
    """Resident memory of a process by kind.

    Attributes:
        anonymous_bytes: Heap and stacks: copied weights, arenas. Only swapping gives it back.
        mapped_bytes: Pages of files: libraries, and a model file that is mapped. The system may drop them.
        shared_bytes: Shared memory.
    """

    anonymous_bytes: int
    mapped_bytes: int
    shared_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConditions:
    """How the artifact was run.

    Attributes:
        kernels: Runtime, version and kernel set as the session names it.
        inputs: Where the input values came from, e.g. "random, seed 0".
        input_sets: Different inputs that were cycled through, so that look-ups do not always hit the same rows.
        calls_per_value: Inferences behind one raw value; above 1 only where one is too short for the clock.
        inputs_sha256: Of the file that the inputs came from; empty for random ones.
        cpus: CPUs that the process was bound to; empty where it was not.
    """

    threads: int
    kernels: str
    batch: int
    signature: str
    inputs: str
    input_sets: int = 1
    calls_per_value: int = 1
    inputs_sha256: str = ""
    cpus: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What a device tells that has no time of its own, such as an emulated board.

    Attributes:
        instructions: Of one inference, the run's divided by its samples: the same at every repetition. No cycles.
        by_function: The same by function of the program, most first.
        flash_bytes: Code and constants of the whole program.
        ram_bytes: Values, and the deepest stack that was seen.
        differing_bits: Of all bits of all outputs, against the reference; None where nothing was compared.
        compared_bits: How many those are.
        reference: What the outputs were compared with.
    """

    instructions: float
    by_function: dict[str, float]
    flash_bytes: int
    ram_bytes: int
    differing_bits: int | None = None
    compared_bits: int = 0
    reference: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkReport:
    """The measurements of one artifact on one device: the content of `benchmark.json`.

    Attributes:
        artifact: The artifact's name, or the file's where it is not one of ours.
        recipe: Precision as asked; empty where unknown.
        sha256: Of the model file.
        model_bytes: What the device must store.
        load_average_before: Over 1, 5 and 15 minutes; empty where the system does not tell.
        warm_up_s: Seconds of each inference before the values count.
        rounds_s: Seconds per inference, raw, by round. Artifacts of one group took turns within each round.
        layer_s: Typical seconds per layer (median of several means); empty with source "none".
        load_s: Opening the session in a fresh process, import of the runtime included.
        base_rss_bytes: Peak resident memory of the process before the model was loaded.
        peak_rss_bytes: The same after the runs; memory-mapped pages of the file count when they were touched.
        group: Identifies the interleaved run; only reports of one group are compared round by round.
        memory_base: By kind, before the model was loaded; None where the device does not tell the kinds apart.
        memory_peak: The largest value of each kind while it was loaded and warmed up, and after the runs.
        states: The machine before each round.
        arena_bytes: What the model's values take in a runtime that plans them in one block; None elsewhere.
        counted: In place of times, where the device has none; then `rounds_s` is empty.
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
    group: str
    load_s: float
    warm_up_s: tuple[float, ...]
    rounds_s: tuple[tuple[float, ...], ...]
    base_rss_bytes: int
    peak_rss_bytes: int
    load_average_before: tuple[float, ...] = ()
    load_average_after: tuple[float, ...] = ()
    layer_s: dict[str, float] = field(default_factory=dict)
    layer_source: Literal["profiler", "none"] = "none"
    notes: tuple[str, ...] = ()
    memory_base: MemoryKinds | None = None
    memory_peak: MemoryKinds | None = None
    states: tuple[MachineState, ...] = ()
    arena_bytes: int | None = None
    counted: Counted | None = None

    def __post_init__(self) -> None:
        values = [value for values in self.rounds_s for value in values]
        if not values and self.counted is None:
            raise BadInput(f"benchmark of {self.artifact}: no measured run.")
        if any(not math.isfinite(value) or value < 0 for value in (*values, *self.warm_up_s, self.load_s)):
            raise BadInput(f"benchmark of {self.artifact}: a duration is negative or not finite.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentiles:
    """Seconds per inference over all measured runs; `std_s` is the sample's standard deviation."""

    runs: int
    min_s: float
    p10_s: float
    p50_s: float
    p90_s: float
    p99_s: float
    max_s: float
    mean_s: float
    std_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """Latency of one artifact over another's, and the interval that holds the median ratio with at least 95 %."""

    median: float
    low: float
    high: float
    rounds: int

    @property
    def resolved(self) -> bool:
        """The interval does not contain 1: one of the two is faster."""
        return not self.low <= 1.0 <= self.high


def run_seconds(report: BenchmarkReport) -> np.ndarray:
    """Seconds of every measured run [runs], in the order they were taken.

    Raises:
        BadInput: The device counted instructions and knows no time.
    """
    if not report.rounds_s:
        raise BadInput(
            f"benchmark of {report.artifact} on {report.device.name}: counted instructions, and has no seconds; "
            "measure it on a device with a clock."
        )
    return np.concatenate([np.asarray(values, dtype=np.float64) for values in report.rounds_s])


def percentiles(report: BenchmarkReport) -> Percentiles:
    """The distribution of the measured runs; warm-up is not part of it."""
    values = run_seconds(report)
    p10, p50, p90, p99 = (float(value) for value in np.percentile(values, (10, 50, 90, 99)))
    return Percentiles(
        runs=values.size,
        min_s=float(values.min()),
        p10_s=p10,
        p50_s=p50,
        p90_s=p90,
        p99_s=p99,
        max_s=float(values.max()),
        mean_s=float(values.mean()),
        std_s=float(values.std(ddof=1)) if values.size > 1 else 0.0,
    )


def median_interval(report: BenchmarkReport) -> tuple[float, float]:
    """Seconds that hold the median latency with at least 95 %, by the medians of the rounds; see `ratio`.

    Rounds and not single runs, because runs that follow each other share the machine's mood. Fewer than six rounds
    give the span of their medians, which covers less.
    """
    medians = sorted(float(np.median(values)) for values in report.rounds_s)
    rank = _outer_rank(len(medians))
    return medians[rank], medians[len(medians) - 1 - rank]


def verdict(ratio: Ratio, *, margin: float = 0.0) -> Verdict:
    """What the interval of a ratio shows: "slower" by more than the margin, "faster", or nothing.

    With a margin, "not slower" says that the interval excludes slower than that, be the sign resolved or not.
    """
    if ratio.low > 1 + margin:
        return "slower"
    if ratio.high < 1:
        return "faster"
    if margin > 0 and ratio.high <= 1 + margin:
        return "not slower"
    return "difference not resolved"


def ratio(report: BenchmarkReport, base: BenchmarkReport) -> Ratio:
    """How many times as long `report` takes as `base`, paired round by round.

    Each round gives one ratio of medians, so that a slow moment of the machine hits both sides. The interval is the
    distribution-free one of the median: the ranks that a binomial(rounds, 1/2) leaves outside with at most 5 %
    (Le Boudec, Performance Evaluation of Computer and Communication Systems, 2010, theorem 2.1).

    Raises:
        BadInput: The two were not measured alike, or in too few rounds.
    """
    problems = _differences(report, base)
    rounds = min(len(report.rounds_s), len(base.rounds_s))
    if rounds < LEAST_ROUNDS_FOR_INTERVAL:
        problems.append(f"{rounds} rounds: a 95 % interval needs at least {LEAST_ROUNDS_FOR_INTERVAL}.")
    if problems:
        where = f"{report.artifact} ({report.recipe}) against {base.artifact} ({base.recipe})"
        raise BadInput(*(f"{where}: {problem}" for problem in problems))
    pairs = zip(report.rounds_s, base.rounds_s, strict=True)
    ratios = sorted(float(np.median(ours) / np.median(theirs)) for ours, theirs in pairs)
    rank = _outer_rank(rounds)
    return Ratio(median=float(np.median(ratios)), low=ratios[rank], high=ratios[rounds - 1 - rank], rounds=rounds)


def _differences(report: BenchmarkReport, base: BenchmarkReport) -> list[str]:
    """Why two reports must not be compared; empty for like with like."""
    pairs = {
        "device": (report.device.name, base.device.name),
        "machine": (report.machine.cpu_model, base.machine.cpu_model),
        "threads": (report.conditions.threads, base.conditions.threads),
        "batch": (report.conditions.batch, base.conditions.batch),
        "provenance": (report.provenance, base.provenance),
        "interleaved group": (report.group, base.group),
        "number of rounds": (len(report.rounds_s), len(base.rounds_s)),
    }
    return [
        f"different {what} ({ours} and {theirs}): measure both in one benchmark, under the same conditions."
        for what, (ours, theirs) in pairs.items()
        if ours != theirs
    ]


def _outer_rank(count: int) -> int:
    """The largest k with P(binomial(count, 1/2) <= k) <= 2.5 %: sorted values k and count-1-k bound the median.

    A rank k (from 0) is the interval's lower end when at most k values may lie below the median.
    """
    cumulative = 0.0
    for rank in range(count):
        cumulative += math.comb(count, rank) / 2.0**count
        if cumulative > 0.025:
            return max(rank - 1, 0)
    return 0
