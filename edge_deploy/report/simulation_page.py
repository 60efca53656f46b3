"""The page of a simulation: the verdict, cut and latency along the trace, distributions, and the regret table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edge_deploy.core.units import format_seconds
from edge_deploy.report.document import document
from edge_deploy.report.markup import Markup, element
from edge_deploy.report.simulation_drawings import SIMULATION_STYLE, AlongTrace, along_trace, distributions, legend
from edge_deploy.report.tables import Column, facts, table
from partitioner.simulator.compare import BOUNDS, Comparison, Score

__all__ = ["regret_table", "simulation_page"]


def simulation_page(
    title: str,
    lead: str,
    found: Comparison,
    along: AlongTrace,
    spread: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    told: Sequence[tuple[str, str]],
) -> str:
    """The whole HTML text.

    Args:
        spread: By policy: latencies, and the share of requests that take no longer.
        told: What was simulated, one line each.
    """
    names = [score.name for score in found.scores]
    drawn = [*names[: -len(BOUNDS)], "oracle"]
    return document(
        f"{title} - edge-deploy simulation",
        element("h1", title),
        element("p", lead, css="lead"),
        element("p", found.verdict, css=f"verdict {'good' if found.pays else 'fair'}"),
        element("h2", "Along the trace"),
        element(
            "figure", along_trace(along, _shown(found), names), _caption(along.source), legend(_shown(found), names)
        ),
        element("h2", "How long requests take"),
        element(
            "figure",
            distributions(spread, drawn, names),
            _caption("Further left is faster; the last percents are the slow requests."),
            legend(drawn, names),
        ),
        element("h2", "Policies and bounds"),
        element("div", regret_table(found.scores)),
        element("p", _reading(), css="muted"),
        element("h2", "What was simulated"),
        facts(list(told)),
        style=SIMULATION_STYLE,
    )


def _shown(found: Comparison) -> list[str]:
    """The static cut, the best adapting policy, and the oracle."""
    adapting = [score for score in found.scores if score.adapts and score.name not in BOUNDS]
    best = [max(adapting, key=lambda score: score.gain).name] if adapting else []
    return ["oracle", "static", *best]


def regret_table(scores: Sequence[Score]) -> Markup:
    """Every policy and bound, with its distance from the oracle and from the static cut."""
    oracle = next(score for score in scores if score.name == "oracle")
    columns: list[Column[Score]] = [
        Column(title="Policy", cell=lambda s: s.name),
        Column(title="mean", cell=lambda s: format_seconds(s.mean_s), numeric=True, group="latency"),
        Column(title="p50", cell=lambda s: format_seconds(s.p50_s), numeric=True, group="latency"),
        Column(title="p95", cell=lambda s: format_seconds(s.p95_s), numeric=True, group="latency"),
        Column(title="p99", cell=lambda s: format_seconds(s.p99_s), numeric=True, group="latency"),
        Column(title="over the oracle", cell=lambda s: _regret(s, oracle), numeric=True, group="mean"),
        Column(title="under the static cut", cell=lambda s: f"{s.gain:.1%}", numeric=True, group="mean"),
        Column(
            title="95 % interval", cell=lambda s: f"{s.gain_low:.1%} to {s.gain_high:.1%}", numeric=True, group="mean"
        ),
        Column(title="of the gap", cell=_captured, numeric=True, group="captured"),
        Column(title="95 % interval", cell=_captured_interval, numeric=True, group="captured"),
        Column(title="switches", cell=lambda s: f"{s.switches}", numeric=True),
        Column(title="an hour", cell=lambda s: f"{s.switches_per_hour:.0f}", numeric=True),
        Column(title="fallbacks", cell=lambda s: f"{s.fallbacks}", numeric=True),
        Column(title="lost", cell=lambda s: f"{s.lost}", numeric=True),
    ]
    if any(score.late for score in scores):
        columns.append(Column(title="over the limit", cell=lambda s: f"{s.late}", numeric=True))
    return table(
        columns, scores, row_css=lambda s: "bound" if s.name in BOUNDS else "static" if s.name == "static" else ""
    )


def _regret(score: Score, oracle: Score) -> str:
    return f"{score.mean_s / oracle.mean_s - 1:+.1%}"


def _captured(score: Score) -> str | None:
    return None if score.captured is None or not score.adapts else f"{score.captured:.0%}"


def _captured_interval(score: Score) -> str | None:
    if score.captured_low is None or score.captured_high is None or not score.adapts:
        return None
    return f"{score.captured_low:.0%} to {score.captured_high:.0%}"


def _caption(text: str) -> Markup:
    return element("figcaption", text, css="muted")


def _reading() -> str:
    return (
        "The gap is what an oracle that knows the future and switches for free (oracle) gains over the static cut; "
        "oracle-paying pays for its switches, hindsight-static is the best single cut of the scored trace. Fallbacks "
        "were finished on the edge because the cloud did not answer in time. Captured shares are left out where the "
        "oracle gains less than 1 %."
    )
