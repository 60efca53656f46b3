"""A study of sweeps as one page: what drives the time, where the best cut lies, and whether moving it pays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_deploy.core.toolchain import versions
from edge_deploy.core.units import format_seconds
from edge_deploy.report.document import document
from edge_deploy.report.markup import Markup, element
from edge_deploy.report.study_drawings import (
    STUDY_STYLE,
    Bar,
    bars,
    best_cut_map,
    modelled_over_measured,
    stacked_shares,
)
from edge_deploy.report.tables import Column, table
from partitioner.study.findings import Findings
from partitioner.study.held_out import Captured
from partitioner.study.model_error import ErrorSummary, Pair

__all__ = ["error_section", "key_table", "study_page", "study_section"]


def study_page(
    findings: Sequence[Findings],
    *,
    source: str,
    provenance: str,
    notes: Sequence[str] = (),
    errors: Sequence[ErrorSummary] = (),
    pairs: Sequence[Pair] = (),
) -> str:
    """The whole HTML text.

    Args:
        source: Where the sweeps came from.
        provenance: "measured" or "modelled", as it is said beside every figure.
        errors: Of the model against the measured `pairs`.
    """
    points = sum(each.values for each in findings)
    version = versions("edge-deploy").get("edge-deploy", "from a checkout")
    lead = f"{len(findings)} models, {points:,} {provenance} values, from {source}. Written by edge-deploy {version}."
    said = [element("li", note) for note in notes]
    overview = element(
        "section",
        element("h2", "Does moving the cut pay?"),
        element("ul", (element("li", each.verdict) for each in findings)),
        _overview(findings),
        element("p", READING, css="muted"),
        element("ul", said) if said else "",
    )
    return document(
        "Study of partitioning - edge-deploy",
        element("h1", "Study of partitioning"),
        element("p", lead, css="lead"),
        overview,
        error_section(errors, pairs) if errors else "",
        (study_section(each, provenance) for each in findings),
        style=STUDY_STYLE,
    )


def error_section(errors: Sequence[ErrorSummary], pairs: Sequence[Pair]) -> Markup:
    """How far the model is off, as a table and a picture."""
    columns: list[Column[ErrorSummary]] = [
        Column(title="model", cell=lambda each: each.net),
        Column(title="pairs", cell=lambda each: str(each.pairs), numeric=True),
        Column(title="median error", cell=lambda each: f"{each.median:.1%}", numeric=True),
        Column(title="95th percentile", cell=lambda each: f"{each.p95:.1%}", numeric=True),
        Column(title="bias", cell=lambda each: f"{each.bias:+.1%}", numeric=True),
        Column(title="rank correlation", cell=lambda each: f"{each.rank:.3f}", numeric=True),
    ]
    points = [(float(np.median(pair.measured_s)), pair.modelled_s) for pair in pairs]
    return element(
        "section",
        element("h2", "How far the model is off"),
        element("p", PAIRS, css="muted"),
        table(columns, list(errors)),
        element("div", _figure("Modelled over measured", "seconds", modelled_over_measured(points)), css="figures"),
    )


PAIRS = (
    "Random pairs of a cut and a condition were really run: both halves on this host, an edge half, a shaped link in "
    "user space, a cloud half. The error is that of the modelled total against the median of the requests measured."
)
READING = (
    "Static is the best single cut among those measured under all conditions. The oracle takes the best measured cut "
    "of each condition, chosen and scored on the same noisy sample, so nobody reaches it. Held-out: the policy was "
    "chosen, and its cut picked, on other conditions than the one it is scored on."
)


def study_section(found: Findings, provenance: str) -> Markup:
    """One model."""
    where = f"{found.name}, {provenance}"
    shares = [(each.part, each.shares, each.rest) for each in found.variance]
    figures = [
        _figure(
            "Share of the variance of log time by factor", provenance, stacked_shares(shares, found.factors, where)
        ),
    ]
    if found.chosen is not None:
        figures.append(_figure("Mean time of a request", provenance, _means(found)))
        figures.append(_figure("Captured of the gap from static to oracle", "held-out", _captured(found)))
    if found.variance:
        total = found.variance[-1].shares
        varying = [name for at, name in enumerate(found.factors) if len({row[at] for row in found.levels}) > 1]
        order = sorted(varying, key=lambda name: -total[name])
        drawn = best_cut_map(found.factors, found.levels, found.best_cuts, found.cut_names, where, order)
        moved = f"another one than without stress in {found.moved:,} of {found.conditions:,}"
        moved += "" if len(found.levels) == found.conditions else "; drawn: the other factors without stress"
        figures.append(_figure("Best cut of each condition", moved, drawn))
    return element(
        "section",
        element("h2", found.name),
        element("p", found.verdict, css="verdict"),
        element("div", figures, css="figures"),
        element("details", element("summary", "By what the policy knows"), key_table(found.captured)),
    )


def _figure(title: str, note: str, drawn: Markup) -> Markup:
    return element("figure", element("figcaption", title, element("span", note, css="muted")), drawn)


def _means(found: Findings) -> Markup:
    kept = "b-good" if found.resolved else "b-plain"
    chosen_s = found.chosen.mean_s if found.chosen is not None else found.static_s
    rows = (
        (f"best unstressed ({found.unstressed_cut})", found.unstressed_cut_s, "b-plain"),
        (f"static (cut {found.static_cut})", found.static_s, "b-plain"),
        ("moving, held-out", chosen_s, kept),
        ("oracle, same sample", found.oracle_s, "b-oracle"),
    )
    drawn = [Bar(label=label, value=seconds, text=format_seconds(seconds), css=css) for label, seconds, css in rows]
    return bars(drawn, f"{found.name}: mean seconds")


def _captured(found: Findings) -> Markup:
    ranked = sorted((each for each in found.captured if each.key), key=lambda each: -each.share)[:6]
    chosen = [each for each in found.captured if each.policy == "chosen"]
    rows = [
        Bar(
            label="chosen on others" if each.policy == "chosen" else _short(each, found.factors),
            value=max(each.share, -1.0),
            text=f"{each.share:+.0%}",
            css="b-good" if each.low > 0 else "b-plain",
            interval=(max(each.low, -1.0), each.high) if found.noisy else None,
        )
        for each in (*chosen, *ranked)
    ]
    return bars(rows, f"{found.name}: captured share")


def _short(each: Captured, factors: Sequence[str]) -> str:
    if each.policy == "model":
        return "model of main effects"
    if len(each.key) == len(factors) - 1:
        return "all but " + next(iter(set(factors) - set(each.key))).removesuffix("_stress_pct").replace("_", " ")
    return " + ".join(
        name.removesuffix("_stress_pct").removesuffix("_mbit_s").removesuffix("_bps").replace("_", " ")
        for name in each.key
    )[:28]


def _overview(findings: Sequence[Findings]) -> Markup:
    columns: list[Column[Findings]] = [
        Column(title="model", cell=lambda each: each.name),
        Column(title="conditions", cell=lambda each: f"{each.conditions:,}", numeric=True),
        Column(title="cuts", cell=lambda each: str(each.cuts), numeric=True),
        Column(title="values", cell=lambda each: f"{each.values:,}", numeric=True),
        Column(title="best cut moves in", cell=lambda each: f"{each.moved:,}", numeric=True),
        Column(title="static", cell=lambda each: format_seconds(each.static_s), numeric=True, group="mean time"),
        Column(
            title="held-out",
            cell=lambda each: format_seconds(each.chosen.mean_s) if each.chosen else None,
            numeric=True,
            group="mean time",
        ),
        Column(title="oracle", cell=lambda each: format_seconds(each.oracle_s), numeric=True, group="mean time"),
        Column(title="oracle, same sample", cell=lambda each: f"{each.oracle_gain:.1%}", numeric=True, group="gain"),
        Column(
            title="held-out",
            cell=lambda each: f"{each.chosen.gain:+.1%}" if each.chosen else None,
            numeric=True,
            group="gain",
        ),
        Column(
            title="of the gap (95 %)",
            cell=_of_the_gap,
            numeric=True,
            group="gain",
        ),
    ]
    return table(columns, list(findings))


def _of_the_gap(found: Findings) -> str | None:
    if found.chosen is None:
        return None
    interval = f" ({found.chosen.low:+.0%} to {found.chosen.high:+.0%})" if found.noisy else ""
    return f"{found.chosen.share:+.0%}{interval}"


def key_table(captured: Sequence[Captured]) -> Markup:
    """What every policy and key captures, held-out and on the same sample."""
    columns: list[Column[Captured]] = [
        Column(title="policy", cell=lambda each: each.policy),
        Column(title="knows", cell=lambda each: " + ".join(each.key) or "-"),
        Column(title="mean time", cell=lambda each: format_seconds(each.mean_s), numeric=True),
        Column(title="gain", cell=lambda each: f"{each.gain:+.1%}", numeric=True),
        Column(title="of the gap", cell=lambda each: f"{each.share:+.0%}", numeric=True),
        Column(title="95 %", cell=lambda each: f"{each.low:+.0%} to {each.high:+.0%}", numeric=True),
        Column(title="on the same sample", cell=lambda each: f"{each.same_sample_share:+.0%}", numeric=True),
    ]
    return table(columns, list(captured))
