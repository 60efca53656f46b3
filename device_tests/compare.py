"""Compare two reports: only like with like, with an interval, and a verdict that may be "difference not resolved"."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from edge_deploy.core.benchmark import (
    LEAST_ROUNDS_FOR_INTERVAL,
    BenchmarkReport,
    Ratio,
    Verdict,
    ratio,
    verdict,
)
from edge_deploy.core.errors import BadInput, VerificationFailed

__all__ = ["ASPECTS", "Comparison", "compare", "fail_if_slower", "parse_margin", "unlike"]

RESAMPLES = 2000
SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How long one takes over another.

    Attributes:
        ratio: Latency of `report` over `base`'s, with its 95 % interval.
        interleaved: Both were measured in turns, so that a slow machine met both; else the machine may have changed
            between them, of which the interval knows nothing.
        allowed: Aspects that differ and were allowed to.
    """

    report: BenchmarkReport
    base: BenchmarkReport
    ratio: Ratio
    interleaved: bool
    allowed: tuple[str, ...] = ()

    def verdict(self, *, margin: float = 0.0) -> Verdict:
        """See `edge_deploy.core.benchmark.verdict`."""
        return verdict(self.ratio, margin=margin)

    def __str__(self) -> str:
        return f"{self.measured()}: {self.verdict()}"

    def measured(self) -> str:
        """The ratio with its interval, in words."""
        found = self.ratio
        if self.report.counted is not None:
            return (
                f"{name_of(self.report)} takes {found.median:.4f}x the instructions of {name_of(self.base)} (counted)"
            )
        alone = "" if self.interleaved else "; not interleaved: a change of the machine may be part of it"
        return (
            f"{name_of(self.report)} takes {found.median:.3f}x the time of {name_of(self.base)} "
            f"(95 % {found.low:.3f} to {found.high:.3f}{alone})"
        )


def name_of(report: BenchmarkReport) -> str:
    """The artifact as a reader tells it from others."""
    return f"{report.artifact} {report.format} {report.recipe}".strip()


def _inputs(report: BenchmarkReport) -> object:
    return report.conditions.inputs_sha256 or report.conditions.inputs


# What must be alike, by the name under which a difference is refused and allowed.
ASPECTS = {
    "device": lambda report: report.device.name,
    "machine": lambda report: (report.machine.cpu_model, report.machine.isa, report.machine.features),
    "cores": lambda report: report.machine.cores,
    "kernel": lambda report: report.machine.kernel,
    "governor": lambda report: report.machine.governor,
    "provenance": lambda report: report.provenance,
    "runtime": lambda report: report.conditions.kernels,
    "threads": lambda report: report.conditions.threads,
    "cpus": lambda report: report.conditions.cpus,
    "batch": lambda report: report.conditions.batch,
    "inputs": _inputs,
}
# One benchmark compares runtimes and kernels on purpose; they are alike in all that was chosen for all of them.
INTERLEAVED_ASPECTS = ("device", "machine", "provenance", "threads", "batch")


def unlike(report: BenchmarkReport, base: BenchmarkReport) -> dict[str, tuple[object, object]]:
    """Aspects in which two reports differ, with both values."""
    names = INTERLEAVED_ASPECTS if report.group == base.group else tuple(ASPECTS)
    pairs = {name: (ASPECTS[name](report), ASPECTS[name](base)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def compare(report: BenchmarkReport, base: BenchmarkReport, *, allow: Iterable[str] = ()) -> Comparison:
    """Latency of `report` over that of `base`.

    Rounds of one interleaved benchmark are paired. Other reports are compared by resampling their rounds (bootstrap,
    Efron and Tibshirani, 1993): runs within a round share the machine's mood, so a round is drawn as a whole.

    Args:
        allow: Aspects that may differ, e.g. "runtime".

    Raises:
        BadInput: Other aspects differ, an unknown one is allowed, or there are fewer than six rounds.
    """
    allowed = tuple(allow)
    problems = []
    for name in allowed:
        if name not in ASPECTS:
            close = difflib.get_close_matches(name, ASPECTS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(ASPECTS)}."
            problems.append(f"--allow {name}: unknown aspect; {hint}")
    differing = unlike(report, base)
    where = f"{name_of(report)} against {name_of(base)}"
    problems += [
        f"{where}: other {name} ({_text(ours)} and {_text(theirs)}): measure both alike, or --allow {name}."
        for name, (ours, theirs) in differing.items()
        if name not in allowed
    ]
    ours, theirs = report.counted, base.counted
    rounds = min(len(report.rounds_s), len(base.rounds_s))
    if (ours is None) != (theirs is None):
        problems.append(f"{where}: one has times and the other counts of instructions: measure both alike.")
    elif ours is None and rounds < LEAST_ROUNDS_FOR_INTERVAL:
        problems.append(
            f"{where}: {rounds} rounds: a 95 % interval needs at least {LEAST_ROUNDS_FOR_INTERVAL}; see --rounds."
        )
    if problems:
        raise BadInput(*problems)
    noted = tuple(name for name in differing if name in allowed)
    if ours is not None and theirs is not None:  # exact: a count has no interval
        share = ours.instructions / theirs.instructions
        exact = Ratio(median=share, low=share, high=share, rounds=1)
        return Comparison(report=report, base=base, ratio=exact, interleaved=True, allowed=noted)
    interleaved = report.group == base.group and len(report.rounds_s) == len(base.rounds_s) and not differing
    found = ratio(report, base) if interleaved else _resampled(report, base)
    return Comparison(report=report, base=base, ratio=found, interleaved=interleaved, allowed=noted)


def fail_if_slower(comparisons: Iterable[Comparison], margin: float) -> tuple[str, ...]:
    """One line for each comparison that passed; raise for those that are shown to be slower by more than `margin`.

    Args:
        margin: A share, e.g. 0.05.

    Raises:
        VerificationFailed: At least one interval lies above 1 + margin.
    """
    passed, failed = [], []
    for comparison in comparisons:
        seen = comparison.verdict(margin=margin)
        text = comparison.measured()
        if seen == "slower":
            failed.append(f"{comparison}; more than {margin:.0%} slower.")
        elif seen == "difference not resolved":
            passed.append(f"{text}: not resolved against {margin:.0%} slower; more rounds would tell")
        else:
            passed.append(f"{text}: not {margin:.0%} slower")
    if failed:
        raise VerificationFailed(*failed)
    return tuple(passed)


def parse_margin(text: str) -> float:
    """A share of text such as "5%" or "0.05".

    Raises:
        BadInput: No share of 0 to 1000 %.
    """
    stripped = text.strip()
    try:
        share = float(stripped.removesuffix("%")) / (100 if stripped.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 10:
        raise BadInput(f'--fail-if-slower {text}: must be a share such as "5%" or 0.05.')
    return share


def _resampled(report: BenchmarkReport, base: BenchmarkReport) -> Ratio:
    generator = np.random.default_rng(SEED)
    medians = []
    for each in (report, base):
        of_rounds = np.array([np.median(values) for values in each.rounds_s])
        draws = generator.integers(0, len(of_rounds), (RESAMPLES, len(of_rounds)))
        medians.append((float(np.median(of_rounds)), np.median(of_rounds[draws], axis=1)))
    (ours, our_draws), (theirs, their_draws) = medians
    low, high = np.quantile(our_draws / their_draws, (0.025, 0.975))
    rounds = min(len(report.rounds_s), len(base.rounds_s))
    return Ratio(median=ours / theirs, low=float(low), high=float(high), rounds=rounds)


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value) if value not in (None, "") else "none"
