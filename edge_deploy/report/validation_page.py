"""The page of a validation: how far the simulator is from two real processes, condition by condition."""

from __future__ import annotations

import numpy as np

from edge_deploy.core.units import format_bytes, format_seconds
from edge_deploy.report.document import document
from edge_deploy.report.markup import Markup, element
from edge_deploy.report.simulation_drawings import SIMULATION_STYLE, distributions, legend
from edge_deploy.report.tables import Column, facts, table
from partitioner.simulator.validation import Achieved, Validated, Validation

__all__ = ["validation_page"]

NAMES = ("live", "simulated")


def validation_page(found: Validation) -> str:
    """The whole HTML text."""
    lead = (
        f"{found.artifact}: the same requests answered by two processes and by the simulator; {found.seconds:g} s a "
        f"condition, {found.rate_hz:g} requests a second at random moments."
    )
    verdict = (
        f"The simulator's median is {found.typical_median_error:.1%} off typically, {found.worst_median_error:.1%} at "
        "worst."
    )
    return document(
        "Simulation against reality - edge-deploy",
        element("h1", "Simulation against reality"),
        element("p", lead, css="lead"),
        element("p", verdict, css="verdict"),
        table(_columns(), found.conditions),
        element("h2", "What the link really gave"),
        table(_link_columns(), found.links),
        element("h2", "What was measured beforehand"),
        table(_cut_columns(), tuple(found.table.items())),
        element("h2", "Latencies"),
        [_figure(each) for each in found.conditions],
        element("h2", "How it was done"),
        facts(
            [
                ("link", found.shaped_by),
                ("edge", found.edge_quota),
                ("cloud", found.cloud_quota),
                ("between the processes, not shaped", format_seconds(found.base_rtt_s)),
                ("codec", found.codec),
                ("machine", found.machine),
                *(("note", note) for note in found.notes),
            ]
        ),
        style=SIMULATION_STYLE,
    )


def _columns() -> list[Column[Validated]]:
    return [
        Column(title="condition", cell=lambda one: one.name),
        Column(title="requests", cell=lambda one: str(one.requests), numeric=True),
        Column(title="live", cell=lambda one: format_seconds(one.live_median_s), numeric=True, group="median"),
        Column(
            title="simulated", cell=lambda one: format_seconds(one.simulated_median_s), numeric=True, group="median"
        ),
        Column(title="error", cell=lambda one: f"{one.median_error:+.1%}", numeric=True, group="median"),
        Column(title="live", cell=lambda one: format_seconds(one.live_p95_s), numeric=True, group="p95"),
        Column(title="simulated", cell=lambda one: format_seconds(one.simulated_p95_s), numeric=True, group="p95"),
        Column(title="error", cell=lambda one: f"{one.p95_error:+.1%}", numeric=True, group="p95"),
        Column(title="answered: live / simulated", cell=_answered),
        Column(title="switches", cell=lambda one: "{} / {}".format(*one.switches), numeric=True),
    ]


def _answered(one: Validated) -> str:
    return ", ".join(
        f"{how} {live} / {simulated}" for how, (live, simulated) in one.answered.items() if live + simulated
    )


def _link_columns() -> list[Column[Achieved]]:
    return [
        Column(title="link", cell=lambda one: one.link),
        Column(title="asked", cell=lambda one: f"{one.asked_bps / 1e6:.3g} Mbit/s", numeric=True, group="uplink"),
        Column(title="achieved", cell=lambda one: f"{one.achieved_bps / 1e6:.3g} Mbit/s", numeric=True, group="uplink"),
        Column(title="asked", cell=lambda one: format_seconds(one.asked_rtt_s), numeric=True, group="round trip"),
        Column(title="achieved", cell=lambda one: format_seconds(one.achieved_rtt_s), numeric=True, group="round trip"),
    ]


def _cut_columns() -> list[Column[tuple[str, tuple[float, float, int, int]]]]:
    return [
        Column(title="cut", cell=lambda row: row[0]),
        Column(title="on the edge", cell=lambda row: format_seconds(row[1][0]), numeric=True),
        Column(title="beyond it, without the link", cell=lambda row: format_seconds(row[1][1]), numeric=True),
        Column(title="bytes up", cell=lambda row: format_bytes(row[1][2]), numeric=True),
        Column(title="bytes down", cell=lambda row: format_bytes(row[1][3]), numeric=True),
    ]


def _figure(one: Validated) -> Markup:
    shares = np.linspace(0, 1, len(one.quantiles[0])).tolist()
    spread = {name: (values, shares) for name, values in zip(NAMES, one.quantiles, strict=True)}
    caption = element("figcaption", f"{one.name}: share of requests that take no longer.")
    if not all(np.isfinite(one.quantiles).ravel()):
        return element("p", f"{one.name}: some requests were never answered; no drawing.")
    return element("figure", distributions(spread, list(NAMES), list(NAMES)), caption, legend(NAMES, NAMES))
