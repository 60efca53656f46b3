import math

import numpy as np
import pytest

from device_tests.loadgen_stopping import early_stopping_s, least_queries, most_discarded


def test_so_many_queries_are_needed_as_the_rules_say():
    assert least_queries(0.90) == 64
    assert least_queries(0.99) == 662


def test_it_is_the_binomial_that_the_rules_name():
    for queries, percentile in ((64, 0.9), (200, 0.9), (1001, 0.9), (700, 0.99)):
        allowed = most_discarded(queries, percentile)
        tails = [
            sum(math.comb(queries, k) * (1 - percentile) ** k * percentile ** (queries - k) for k in range(most + 1))
            for most in (allowed, allowed + 1)
        ]
        assert tails[0] <= 0.01 < tails[1]


def test_too_few_queries_state_nothing():
    assert most_discarded(63, 0.9) is None
    assert early_stopping_s([1.0] * 10, 0.9) is None


@pytest.mark.parametrize("draw", ["lognormal", "exponential", "bimodal"])
def test_the_stated_percentile_exceeds_the_true_one_in_at_least_99_percent_of_runs(draw):
    generator = np.random.default_rng(3)
    runs, queries, percentile = 2000, 300, 0.9
    values = {
        "lognormal": lambda: generator.lognormal(0, 0.5, (runs, queries)),
        "exponential": lambda: generator.exponential(1.0, (runs, queries)),
        "bimodal": lambda: (
            np.where(generator.random((runs, queries)) < 0.88, 1.0, 5.0) + generator.random((runs, queries))
        ),
    }[draw]()
    true = {
        "lognormal": math.exp(0.5 * 1.2815515655446004),
        "exponential": -math.log(0.1),
        # 2 of the 12 % that are slow lie below the percentile
        "bimodal": 5.0 + 2 / 12,
    }[draw]
    covered = np.mean([early_stopping_s(row, percentile) >= true for row in values])
    assert covered >= 0.985  # 99 % less three standard errors of 2000 runs
    assert np.median([early_stopping_s(row, percentile) for row in values]) < 2.5 * true
