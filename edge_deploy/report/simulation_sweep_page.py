"""The page of a sweep of simulations: policies over everything, then each model between each pair of devices."""

from __future__ import annotations

import numpy as np

from edge_deploy.core.units import format_seconds
from edge_deploy.report.document import document
from edge_deploy.report.markup import Markup, element
from edge_deploy.report.simulation_drawings import SIMULATION_STYLE
from edge_deploy.report.simulation_page import regret_table
from edge_deploy.report.study_drawings import STUDY_STYLE, Bar, bars
from edge_deploy.report.tables import Column, facts, table
from partitioner.simulator.compare import BOUNDS, STATIC
from partitioner.simulator.swept import OverPairs, SimulationSweep, SweptPair, over_pairs

__all__ = ["simulation_sweep_page"]

GAINS_STYLE = "figure.gains { max-width: 44rem; }"


def simulation_sweep_page(found: SimulationSweep) -> str:
    """The whole HTML text."""
    what = _counted(len(found.pairs), "model between two devices", "models between devices")
    lead = (
        f"{len(found.cells)} cells; {what}, {_counted(len(found.scored_on), 'trace')}, "
        f"{_counted(len(found.seeds), 'seed')}; latencies are simulated."
    )
    return document(
        "Simulations - edge-deploy",
        element("h1", "Simulations"),
        element("p", lead, css="lead"),
        element("h2", "Models and devices"),
        table(_pair_columns(), found.pairs),
        element("h2", "Policies over all of them"),
        table(_policy_columns(len(found.seeds)), over_pairs(found.pairs)),
        [_section(pair, len(found.seeds)) for pair in found.pairs],
        element("h2", "What was simulated"),
        facts(
            [
                ("seeds", ", ".join(str(seed) for seed in found.seeds)),
                ("traces", "; ".join(found.scored_on)),
                ("requests", "one row each in the Parquet files that sweep.json names"),
            ]
        ),
        style=SIMULATION_STYLE + STUDY_STYLE + GAINS_STYLE,
    )


def _counted(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


def _pair_columns() -> list[Column[SweptPair]]:
    return [
        Column(title="model and devices", cell=lambda pair: pair.name),
        Column(title="profiles", cell=lambda pair: pair.provenance),
        Column(title="static mean", cell=lambda pair: format_seconds(pair.score(STATIC).mean_s), numeric=True),
        Column(title="oracle gains", cell=lambda pair: f"{pair.score('oracle').gain:.1%}", numeric=True),
        Column(title="adapting pays", cell=lambda pair: pair.answer),
        Column(title="because", cell=lambda pair: pair.verdict),
    ]


def _policy_columns(seeds: int) -> list[Column[OverPairs]]:
    single = "single pairs and seeds" if seeds > 1 else "single pairs"
    return [
        Column(title="policy", cell=lambda row: row.policy),
        Column(title="median", cell=lambda row: f"{row.gain:+.1%}", numeric=True, group="faster than static"),
        Column(
            title=single,
            cell=lambda row: f"{row.least:+.1%} to {row.most:+.1%}",
            numeric=True,
            group="faster than static",
        ),
        Column(
            title="of the oracle's gain, median",
            cell=lambda row: None if row.captured is None else f"{row.captured:.0%}",
            numeric=True,
        ),
        Column(title="pairs slower than static by over 1 %", cell=lambda row: str(row.worse), numeric=True),
    ]


def _section(pair: SweptPair, seeds: int) -> list[Markup]:
    rows = [
        Bar(
            label=score.name,
            value=score.gain,
            text=f"{score.gain:+.1%}",
            css="b-oracle" if score.name in BOUNDS else "b-good" if score.adapts else "b-plain",
            interval=(score.gain_low, score.gain_high),
        )
        for score in pair.scores
        if score.name != STATIC
    ]
    picture = bars(rows, f"gains over the static cut: {pair.name}")
    caption = "Faster than the static cut, over all traces and seeds, with 95 % intervals."
    return [
        element("h2", pair.name),
        element("p", pair.verdict, css=f"verdict {'good' if pair.pays else 'fair'}"),
        element("figure", picture, element("figcaption", caption, css="muted"), css="gains"),
        element("div", regret_table(pair.scores)),
        *([element("h3", f"Seed by seed ({seeds})"), _by_seed(pair)] if seeds > 1 else []),
        *(element("p", note, css="muted") for note in pair.notes),
    ]


def _by_seed(pair: SweptPair) -> Markup:
    """How far the seeds are apart: what one simulation alone might have said."""
    rows = [(name, np.array(gains)) for name, gains in pair.gains.items() if name != STATIC]
    columns: list[Column[tuple[str, np.ndarray]]] = [
        Column(title="policy", cell=lambda row: row[0]),
        Column(title="lowest", cell=lambda row: f"{row[1].min():+.1%}", numeric=True, group="faster than static"),
        Column(title="median", cell=lambda row: f"{np.median(row[1]):+.1%}", numeric=True, group="faster than static"),
        Column(title="highest", cell=lambda row: f"{row[1].max():+.1%}", numeric=True, group="faster than static"),
        Column(
            title="seeds in which it is faster",
            cell=lambda row: f"{np.count_nonzero(row[1] > 0)} of {len(row[1])}",
            numeric=True,
        ),
    ]
    return table(columns, rows)
