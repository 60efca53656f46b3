"""The front of assignments: every step pays, nothing on it is beaten, ends are the smallest and the most accurate."""

from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.search.assignment import Option, front, spread_over
from converters.search.rank import rank_correlation
from edge_deploy.core.errors import BadInput


def options(sizes, noises):
    """Layers of these sizes, whose noise at 4 bits is given; at 8 it is a hundredth."""
    return {
        f"layer {number}": [
            Option(bits=4, cost=size / 2, noise=noise),
            Option(bits=8, cost=size, noise=noise / 100),
            Option(bits=16, cost=2 * size, noise=0),
        ]
        for number, (size, noise) in enumerate(zip(sizes, noises, strict=True))
    }


LAYERS = st.lists(st.tuples(st.integers(1, 1000), st.floats(0.001, 1000)), min_size=1, max_size=4)


@given(LAYERS)
def test_no_assignment_is_both_cheaper_and_less_noisy_than_one_of_the_front(layers):
    given_options = options(*zip(*layers, strict=True))
    found = front(given_options)
    everything = [
        (sum(option.cost for option in chosen), sum(option.noise for option in chosen))
        for chosen in product(*given_options.values())
    ]
    for assignment in found:
        assert not any(cost < assignment.cost - 1e-9 and noise < assignment.noise - 1e-9 for cost, noise in everything)


@given(LAYERS)
def test_every_step_costs_more_and_is_less_noisy_and_the_first_steps_pay_most(layers):
    found = front(options(*zip(*layers, strict=True)))
    gains = []
    for before, after in pairwise(found):
        assert after.cost > before.cost
        assert after.noise < before.noise
        gains.append((before.noise - after.noise) / (after.cost - before.cost))
    assert all(a >= b * (1 - 1e-6) for a, b in pairwise(gains))


def test_the_sensitive_layer_gets_its_bits_first():
    found = front(options((100, 100), (1.0, 50.0)))
    assert dict(found[0].bits) == {"layer 0": 4, "layer 1": 4}
    assert dict(found[1].bits) == {"layer 0": 4, "layer 1": 8}
    assert set(found[-1].bits.values()) == {16}


def test_some_of_a_front_keep_both_ends():
    found = front(options((100, 10, 1, 50), (1.0, 5.0, 2.0, 8.0)))
    some = spread_over(found, 3)
    assert len(some) == 3
    assert (some[0], some[-1]) == (found[0], found[-1])
    assert spread_over(found, 100) == found


def test_a_layer_without_any_width_is_named():
    with pytest.raises(BadInput, match="layer 7"):
        front({"layer 7": []})


def test_ranks_agree_disagree_or_cannot_be_told():
    assert rank_correlation([1, 2, 3, 4], [10, 20, 35, 40]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    assert 0 < rank_correlation([1, 2, 3, 4], [1, 1, 3, 2]) < 1
    assert rank_correlation([1, 2], [1, 2]) is None
    assert rank_correlation([1, 2, 3], [0, 0, 0]) is None
