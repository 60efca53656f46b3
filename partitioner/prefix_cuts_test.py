"""The walk over all prefixes says of random graphs what the functions for one cut say."""

import numpy as np
import pytest

from edge_deploy.core.cut import make_cut
from edge_deploy.core.layer_graph import Layer, LayerGraph
from edge_deploy.core.tensor import TensorInfo
from partitioner.candidates import prefixes
from partitioner.edge_memory import edge_memories, edge_memory
from partitioner.legal import reasons_against


def random_graph(seed, most=24):
    """Branches, layers with several outputs, weights alone, groups, packed tensors, unread and doubly read tensors."""
    random = np.random.default_rng(seed)

    def tensor(name):
        dtype = str(random.choice(["int8", "float32", "int4"], p=[0.6, 0.3, 0.1]))
        return TensorInfo(name=name, shape=(1, int(random.integers(1, 100))), dtype=dtype)

    inputs = tuple(tensor(f"x{i}") for i in range(random.integers(1, 4)))
    known = [each.name for each in inputs]
    layers = []
    for place in range(random.integers(1, most)):
        reads = () if random.random() < 0.15 else tuple(map(str, random.choice(known, random.integers(1, 4))))
        made = tuple(tensor(f"t{place}.{i}") for i in range(random.integers(1, 3)))
        group = f"g{random.integers(4)}" if random.random() < 0.3 else ""
        layers.append(
            Layer(
                name=f"l{random.integers(1000)}_{place}",
                op="op",
                inputs=reads,
                outputs=made,
                weight_bytes=int(random.integers(50)),
                macs=int(random.integers(50)),
                group=group,
            )
        )
        known += [each.name for each in made]
    outputs = tuple(map(str, random.choice(known, random.integers(1, 4))))
    return LayerGraph(inputs=inputs, outputs=outputs, layers=tuple(layers))


@pytest.mark.parametrize("seed", range(150))
def test_the_walk_gives_the_same_cuts_reasons_and_memory_as_one_cut_at_a_time(seed):
    graph = random_graph(seed)
    names = [layer.name for layer in graph.layers]
    found = prefixes(graph)
    cuts = [make_cut(graph, names[:count]) for count in range(len(names) + 1)]
    assert [each.cut for each in found] == cuts
    assert [each.refused for each in found] == [reasons_against(graph, cut) for cut in cuts]
    assert edge_memories(graph, cuts).tolist() == [edge_memory(graph, cut) for cut in cuts]
    measured = {name: place for place, name in enumerate(reversed(names[: len(names) // 2 + 1]))}
    assert edge_memories(graph, cuts, measured).tolist() == [edge_memory(graph, cut, measured) for cut in cuts]


def test_random_graphs_have_what_the_walk_could_get_wrong():
    graphs = [random_graph(seed) for seed in range(150)]
    assert sum(bool(graph.constant_layers) for graph in graphs) > 50
    refused = [reason for graph in graphs for each in prefixes(graph) for reason in each.refused]
    for said in ("fused pattern", "share a byte", "as all-cloud", "as all-edge"):
        assert any(said in reason for reason in refused), said
    assert any(len(each.cut.up) > 3 for graph in graphs for each in prefixes(graph))


def test_cuts_that_are_no_prefixes_have_their_memory_too():
    graph = random_graph(3)
    down_set = [layer.name for layer in graph.layers if set(layer.inputs) <= {each.name for each in graph.inputs}]
    cuts = [make_cut(graph, down_set), make_cut(graph, ())]
    assert edge_memories(graph, cuts).tolist() == [edge_memory(graph, cut) for cut in cuts]
