from __future__ import annotations

import pytest

from edge_deploy.bench import matrix, matrix_cells
from edge_deploy.bench.matrix import CHAMPION, POLICIES, Cell, cells, run_cell, summary


def row(oracle: float, champion: float) -> dict:
    cell = {"model": "m", "edge": "e", "cloud": "c", "traces": "t"}
    gains = dict.fromkeys((*POLICIES, "oracle", "oracle-paying"), 0.0) | {"oracle": oracle, CHAMPION: champion}
    scores = [
        {"name": name, "gain": gain, "captured": gain / oracle if oracle >= 0.01 else None}
        for name, gain in gains.items()
    ]
    return {"cell": cell, "scores": scores, "pays": champion > 0.01}


def test_the_summary_says_what_is_met_and_what_is_not():
    good = summary([row(0.3, 0.25), row(0.2, 0.15), row(0.0, 0.0)])
    assert "NOT MET" not in good and good.count("- met:") == 3
    assert "median cell with over 10% to gain: 79%" in good
    worse = summary([row(0.3, 0.25), row(0.2, 0.15), row(0.0, -0.02)])
    assert "NOT MET: nowhere more than 1% worse than static: at most 2.00%" in worse
    idle = summary([row(0.02, 0.0), row(0.03, 0.0), row(0.2, 0.1), row(0.0, 0.0)])
    assert idle.count("NOT MET") == 2


def test_cells_are_fixed_and_named_apart():
    scored, dev, fresh = cells("scored"), cells("dev"), cells("fresh")
    assert len(scored) == 288 and len({cell.name for cell in (*scored, *dev, *fresh)}) == 3 * 288
    assert not {(cell.model, cell.edge, cell.cloud) for cell in fresh} & {(c.model, c.edge, c.cloud) for c in scored}


@pytest.mark.needs_data
def test_one_cell_from_tables_to_scores(data, monkeypatch):
    monkeypatch.setattr(matrix_cells, "MOST_TRACES", 4)  # the cell itself looks at a dozen
    monkeypatch.setattr(matrix, "MOST_TIMES", 1)
    cell = Cell(model="vgg16", edge="2500", cloud="6700k(GPU)", traces="markov-fast", part="scored")
    found = run_cell(cell, data)
    scores = {score["name"]: score for score in found["scores"]}
    assert set(POLICIES) <= set(scores)
    assert scores["oracle"]["gain"] > 0.1 and scores[CHAMPION]["captured"] > 0.5
    assert scores["static"]["lost"] == 0
