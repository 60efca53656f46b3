"""The page of a plan: the decision, the map of best cuts, bytes and time along the layers, everything considered."""

from __future__ import annotations

from edge_deploy.core.partition_plan import Considered, PartitionPlan
from edge_deploy.core.units import format_bytes, format_seconds
from edge_deploy.report.document import document
from edge_deploy.report.markup import Markup, element
from edge_deploy.report.plan_layers import AlongLayers, layers_picture
from edge_deploy.report.plan_map import CutMap, cut_map

__all__ = ["plan_page"]

MOST_ROWS = 60


def plan_page(plan: PartitionPlan, title: str, lead: str, found: CutMap, along: AlongLayers) -> str:
    """The whole HTML text."""
    sizes, times = layers_picture(along)
    now = plan.conditions
    stated = (
        f"uplink {now.uplink_bps / 1e6:g} Mbit/s, downlink {now.downlink_bps / 1e6:g} Mbit/s, round trip "
        f"{format_seconds(now.rtt_s)}, edge load {now.edge_load:.0%}, cloud load {now.cloud_load:.0%}"
    )
    return document(
        f"{title} - edge-deploy plan",
        element("h1", title),
        element("p", lead, css="lead"),
        element("p", element("strong", ", ".join(plan.cuts)), f": {plan.why} ({plan.provenance})."),
        element("p", stated, css="muted"),
        (element("p", f"Note: {warning}", css="fair") for warning in plan.warnings),
        element("h2", "Best cut over uplink and load"),
        element(
            "figure",
            cut_map(found),
            _caption(f"The ring is this plan; everything else is as stated above. {found.note}".strip()),
        ),
        element("h2", "Along the layers"),
        element("figure", sizes, _caption("Bytes that cross at each position; grey where no cut can be made.")),
        element("figure", times, _caption("Time of each layer: wide bars on the idle edge, narrow ones in the cloud.")),
        element("h2", "Considered"),
        _table(plan.considered),
    )


def _caption(text: str) -> Markup:
    return element("figcaption", text, css="muted")


def _table(considered: tuple[Considered, ...]) -> Markup:
    columns = ("cut", "total", "edge", "encode", "uplink", "round trip", "queue", "cloud", "downlink", "bytes up")
    header = element("tr", (element("th", name) for name in (*columns, "edge memory", "allowed")))
    rows = [_row(item) for item in considered[:MOST_ROWS]]
    more = len(considered) - MOST_ROWS
    note = element("p", f"{more} more are in the JSON.", css="muted") if more > 0 else ""
    return element("div", element("table", element("thead", header), element("tbody", rows)), note, css="scroll")


def _row(item: Considered) -> Markup:
    cost = item.cost
    seconds = (
        cost.total_s,
        cost.edge_s,
        cost.encode_s,
        cost.uplink_s,
        cost.rtt_s,
        cost.queue_s,
        cost.cloud_s,
        cost.downlink_s,
    )
    cells = [item.cut, *(format_seconds(value) for value in seconds)]
    cells += [format_bytes(cost.up_bytes), format_bytes(cost.edge_bytes), item.refused or "yes"]
    return element("tr", (element("td", cell) for cell in cells))
