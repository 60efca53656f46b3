import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_deploy.core.errors import BadInput
from runtimes.serving.handling import measure_handling
from runtimes.serving.queue_model import Load, QueueModel, Setting
from runtimes.serving.tuning import rate_grid, search_all, tune

WAITS_S = (0.0, 0.001, 0.002)


def service(fixed_s, row_s, sizes=(1, 2, 8, 32)):
    return {size: [fixed_s + row_s * size] for size in sizes}


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    fixed_us=st.integers(50, 2000),
    row_us=st.integers(5, 400),
    limit_ms=st.integers(3, 50),
    sessions=st.integers(1, 3),
    rows=st.sampled_from([(1,), (1, 1, 2, 4), (4, 16, 32)]),
)
def test_the_search_carries_nearly_what_the_exhaustive_one_does_with_few_probes(
    fixed_us, row_us, limit_ms, sessions, rows
):
    times = service(fixed_us * 1e-6, row_us * 1e-6)
    model = QueueModel(times, sessions=sessions, load=Load(rows=rows, requests=150))
    capacity = sessions * max(size / values[0] for size, values in times.items()) / np.mean(rows)
    given_ = {"rows": sorted(times), "waits_s": WAITS_S, "limit_s": limit_ms * 1e-3, "rates": rate_grid(capacity)}
    found, best = tune(model.p95_s, **given_), search_all(model.p95_s, **given_)
    assert found.rate_rps <= best.rate_rps
    step = given_["rates"][1] / given_["rates"][0]
    assert found.rate_rps >= best.rate_rps / step**2 - 1e-9
    assert found.probes <= best.probes / 4
    if found.rate_rps:
        assert found.p95_s <= limit_ms * 1e-3
        assert model.p95_s(found.setting, found.rate_rps) == found.p95_s


def test_batches_pay_where_a_run_costs_more_than_a_row_and_not_where_rows_cost_everything():
    for fixed_s, row_s, wanted in ((2e-3, 1e-5, 8), (0.0, 1e-3, 1)):
        times = service(fixed_s, row_s)
        capacity = max(size / values[0] for size, values in times.items())
        model = QueueModel(times, load=Load(requests=800))
        found = tune(model.p95_s, rows=sorted(times), waits_s=(0.0,), limit_s=0.02, rates=rate_grid(capacity))
        assert found.setting.rows >= wanted if wanted > 1 else found.setting.rows == 1


def test_arrivals_are_truly_exponential_and_the_queue_is_the_one_of_the_books():
    """M/D/1: the mean wait is rho s / (2 (1 - rho)); regular arrivals would hardly wait at all."""
    s, rho = 1e-3, 0.7
    model = QueueModel({1: [s]}, load=Load(requests=60_000, seed=3))
    latencies = model.latencies_s(Setting(rows=1), rho / s)
    assert math.isclose(latencies.mean() - s, rho * s / (2 * (1 - rho)), rel_tol=0.1)
    gaps = model._unit_gaps
    assert math.isclose(gaps.std() / gaps.mean(), 1.0, rel_tol=0.02)


def test_large_requests_are_spread_over_sessions():
    model = QueueModel({8: [1e-3]}, sessions=2, load=Load(rows=(16,), requests=50))
    assert model.latencies_s(Setting(rows=8), 0.1).max() == pytest.approx(1e-3)
    alone = QueueModel({8: [1e-3]}, sessions=1, load=Load(rows=(16,), requests=50))
    assert alone.latencies_s(Setting(rows=8), 0.1).max() == pytest.approx(2e-3)


def test_a_limit_below_one_inference_carries_nothing():
    model = QueueModel({1: [1e-3]}, load=Load(requests=50))
    found = tune(model.p95_s, rows=(1,), waits_s=(0.0,), limit_s=1e-4, rates=rate_grid(1000))
    assert found.rate_rps == 0.0 and found.p95_s == math.inf


def test_nothing_to_choose_from_is_refused():
    with pytest.raises(BadInput, match="must ascend"):
        tune(lambda setting, rate: 0.0, rows=(4, 1), waits_s=(0.0,), limit_s=1.0, rates=(1.0,))
    with pytest.raises(BadInput, match="limit"):
        tune(lambda setting, rate: 0.0, rows=(1,), waits_s=(0.0,), limit_s=0.0, rates=(1.0,))
    with pytest.raises(BadInput, match="capacity"):
        rate_grid(0.0)


def test_what_a_request_costs_beside_its_inference_takes_from_the_load_that_is_carried():
    given_ = {"rows": (1,), "waits_s": (0.0,), "limit_s": 0.02, "rates": rate_grid(1000.0)}
    free, dear = (
        tune(QueueModel({1: [1e-3]}, load=Load(requests=400), handling_s=handling_s).p95_s, **given_)
        for handling_s in (0.0, 1e-3)
    )
    assert dear.rate_rps <= 0.6 * free.rate_rps
    assert 0 < measure_handling() < math.inf
