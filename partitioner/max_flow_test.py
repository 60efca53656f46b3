import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partitioner.max_flow import min_cut


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_networkx_finds_the_same_value(count, seed):
    networkx = pytest.importorskip("networkx")
    rng = np.random.default_rng(seed)
    supply = np.where(rng.random(count) < 0.6, rng.uniform(0, 1, count), 0.0).tolist()
    demand = np.where(rng.random(count) < 0.6, rng.uniform(0, 1, count), 0.0).tolist()
    arcs = []
    for _ in range(3 * count):
        tail, head = rng.integers(0, count, 2)
        if tail != head:
            back = math.inf if rng.random() < 0.1 else float(rng.uniform(0, 1)) * (rng.random() < 0.5)
            arcs.append((int(tail), int(head), float(rng.uniform(0, 1)), back))
    value, on_source = min_cut(supply, demand, arcs)
    graph = networkx.DiGraph()
    graph.add_nodes_from(["s", "t"])
    capacity: dict = {}
    for node in range(count):
        capacity["s", node], capacity[node, "t"] = supply[node], demand[node]
    for tail, head, forth, back in arcs:
        capacity[tail, head] = capacity.get((tail, head), 0.0) + forth
        capacity[head, tail] = capacity.get((head, tail), 0.0) + back
    for (tail, head), size in capacity.items():
        if math.isfinite(size):
            graph.add_edge(tail, head, capacity=size)
        else:
            graph.add_edge(tail, head)
    assert value == pytest.approx(networkx.minimum_cut_value(graph, "s", "t"), abs=1e-9)
    assert len(on_source) == count


def test_a_chain_is_cut_at_its_narrowest_arc():
    arcs = [(0, 1, 5.0, 0.0), (1, 2, 2.0, 0.0), (2, 3, 4.0, 0.0)]
    assert min_cut([9.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 9.0], arcs) == (2.0, [True, True, False, False])
