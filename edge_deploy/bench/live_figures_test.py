"""Every figure can be met and missed, and what was not measured is said."""

import copy

import pytest

from edge_deploy.bench.live_figures import figures

GOOD = {
    "simulator": {
        "conditions": {
            "3g, all-cloud": {
                "live_median_ms": 100.0,
                "simulated_median_ms": 91.0,
                "median_error": -0.09,
                "p95_error": 0.2,
            }
        }
    },
    "overhead": {
        "net, all-edge beside the bare interpreter": {"bare_us": 200.0, "added_us": 9.0, "low_us": 8.0, "high_us": 9.5},
        "net, all-cloud beside a bare echo": {"added_us": 250.0, "low_us": 240.0, "high_us": 260.0},
    },
    "faults": {
        **{"answers": 10_000, "asked": 10_000, "recorded": 10_000, "wrong": 0, "errors": {}, "seconds": 300},
        **{"switches": 290, "kills": 20, "drops": 20, "twice": 0, "never": 0, "p50_ms": 1.0, "p99_ms": 600.0},
    },
    "clients": {"clients": 1000, "seconds": 60.0, "right_answers": 60_000, "errors": {}, "median_ms": 3, "p99_ms": 9},
    "hostile": {
        **{"messages": 10_000, "processes": "the same throughout", "honest_answers": 50, "honest_failures": []},
        **{"honest_p99_ms": 3.0, "wrong_digests": 9, "wrong_digests_refused": 9, "resident_mb": [80.0, 90.0, 91.0]},
    },
}
BAD = [
    ("simulator", lambda row: row["conditions"]["3g, all-cloud"].update(median_error=0.11)),
    ("overhead", lambda row: row["net, all-edge beside the bare interpreter"].update(added_us=11.0)),
    ("overhead", lambda row: row["net, all-cloud beside a bare echo"].update(added_us=301.0)),
    ("faults", lambda row: row.update(answers=9_999)),
    ("faults", lambda row: row.update(recorded=10_001)),
    ("faults", lambda row: row.update(twice=1)),
    ("faults", lambda row: row.update(never=1)),
    ("faults", lambda row: row.update(wrong=1)),
    ("faults", lambda row: row.update(kills=19)),
    ("faults", lambda row: row.update(seconds=60)),
    ("clients", lambda row: row.update(errors={"CloudOverloaded": 1})),
    ("hostile", lambda row: row.update(processes="one died")),
    ("hostile", lambda row: row.update(resident_mb=[80.0, 90.0, 150.0])),
    ("hostile", lambda row: row.update(honest_failures=["CloudTimedOut"])),
]


def test_good_rows_meet_every_figure():
    assert {verdict for *_, verdict in figures(GOOD)} == {"met"}


@pytest.mark.parametrize(("part", "spoil"), BAD)
def test_one_bad_value_misses_its_figure_and_no_other(part, spoil):
    rows = copy.deepcopy(GOOD)
    spoil(rows[part])
    assert [verdict for *_, verdict in figures(rows)].count("NOT MET") == 1
    assert [verdict for *_, verdict in figures({part: rows[part]})].count("NOT MET") == 1


def test_parts_that_were_not_run_are_not_called_met():
    assert [row[-1] for row in figures({})] == ["not measured"] * 5
