"""A model as a flow network in which a cut costs what it costs between edge and cloud (DADS, Hu et al. 2019).

The source's side is the edge. A layer is tied to the source by what it costs in the cloud and to the sink by what it
costs on the edge; a tensor with several readers passes through a vertex of its own, so that it is paid once; infinite
links back from readers to makers keep every ancestor of an edge layer on the edge, which the published construction
lacks. Outputs that the cloud makes come back: that is part of what their layer costs there.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from edge_deploy.core.cut import tensor_bytes
from edge_deploy.core.layer_graph import LayerGraph
from edge_deploy.core.legality import can_cross
from edge_deploy.core.tensor import TensorInfo
from partitioner.max_flow import min_cut
from runtimes.contracts import Codec

__all__ = ["FlowNetwork", "Prices", "cheapest_edge_layers", "flow_network"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Travel:
    """A tensor that may cross.

    Attributes:
        maker: Index of the layer that makes it; None for an input of the model.
        readers: Indices of the layers that read it.
        sent: Bytes on the wire; inf when it cannot cross.
        uncoded: Bytes before encoding.
    """

    maker: int | None
    readers: tuple[int, ...]
    sent: float
    uncoded: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowNetwork:
    """What does not depend on conditions.

    Attributes:
        layers: Names of those that depend on the inputs, in topological order; they are the first nodes.
        travels: Tensors that layers read.
        returned: By layer index: bytes of the outputs that come back when the layer runs in the cloud.
        together: Pairs of layers that are computed as one.
        constant: By name: the layers that read what a constant layer makes.
        all_layers: Every name, in order.
    """

    layers: tuple[str, ...]
    travels: tuple[Travel, ...]
    returned: tuple[float, ...]
    together: tuple[tuple[int, int], ...]
    constant: dict[str, frozenset[str]]
    all_layers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What is paid under some conditions, in one unit, e.g. seconds; inf forbids.

    Attributes:
        edge: By layer name; `cloud` likewise.
        sent: For each encoded byte that goes up; `uncoded`: for each byte that is encoded and decoded.
        returned: For each byte that comes back.
    """

    edge: dict[str, float]
    cloud: dict[str, float]
    sent: float
    uncoded: float
    returned: float


def flow_network(graph: LayerGraph, codec: Codec, *, private: Collection[str] = ()) -> FlowNetwork:
    """The network of a model; made once.

    Args:
        private: Names of tensors that must not cross.

    Raises:
        BadInput: The size of a tensor is dynamic.
    """
    constant = graph.constant_layers
    layers = tuple(layer for layer in graph.layers if layer.name not in constant)
    index = {layer.name: number for number, layer in enumerate(layers)}
    readers: dict[str, dict[int, None]] = {}
    for number, layer in enumerate(layers):
        for name in layer.inputs:
            readers.setdefault(name, {})[number] = None
    made: list[tuple[int | None, TensorInfo]] = [(None, tensor) for tensor in graph.inputs]
    made += [(number, tensor) for number, layer in enumerate(layers) for tensor in layer.outputs]
    wanted = set(graph.outputs)
    return FlowNetwork(
        layers=tuple(index),
        travels=tuple(
            Travel(
                maker=maker,
                readers=tuple(readers[tensor.name]),
                sent=codec.encoded_bytes((tensor,)) if can_cross(tensor) and tensor.name not in private else math.inf,
                uncoded=tensor_bytes(tensor),
            )
            for maker, tensor in made
            if tensor.name in readers
        ),
        returned=tuple(
            sum(_returned_bytes(tensor) for tensor in layer.outputs if tensor.name in wanted) for layer in layers
        ),
        together=_together(graph, index),
        constant=_readers_of_constants(graph, constant),
        all_layers=tuple(layer.name for layer in graph.layers),
    )


def cheapest_edge_layers(network: FlowNetwork, prices: Prices) -> tuple[str, ...]:
    """The layers on the edge at the lowest sum of prices, over all down-sets."""
    costs = [travel.sent * prices.sent + travel.uncoded * prices.uncoded for travel in network.travels]
    back = [size * prices.returned for size in network.returned]
    there = [prices.cloud[name] for name in network.layers]
    here = [prices.edge[name] for name in network.layers]
    # More than everything together that is paid: what is forbidden is never part of a cut that can be avoided.
    limit = 2.0 + 2.0 * sum(price for price in (*costs, *back, *there, *here) if price < math.inf)
    supply = [min(price + returned, limit) for price, returned in zip(there, back, strict=True)]
    demand = [min(price, limit) for price in here]
    arcs: list[tuple[int, int, float, float]] = []
    for travel, cost in zip(network.travels, costs, strict=True):
        pays = min(cost, limit)
        if len(travel.readers) == 1:
            (reader,) = travel.readers
            if travel.maker is None:
                supply[reader] += pays
            else:
                arcs.append((travel.maker, reader, pays, math.inf))
            continue
        once = len(supply)
        demand.append(0.0)
        supply.append(pays if travel.maker is None else 0.0)
        if travel.maker is not None:
            arcs.append((travel.maker, once, pays, 0.0))
            arcs += [(reader, travel.maker, math.inf, 0.0) for reader in travel.readers]
        arcs += [(once, reader, math.inf, 0.0) for reader in travel.readers]
    arcs += [(one, other, math.inf, math.inf) for one, other in network.together]
    _, on_edge = min_cut(supply, demand, arcs)
    return _with_constants(network, {name for name, here in zip(network.layers, on_edge, strict=False) if here})


def _with_constants(network: FlowNetwork, edge: set[str]) -> tuple[str, ...]:
    """A layer of constants stays with what reads it on the edge, else in the cloud."""
    if len(edge) == len(network.layers):
        return network.all_layers
    return tuple(name for name in network.all_layers if name in edge or network.constant.get(name, frozenset()) & edge)


def _returned_bytes(tensor: TensorInfo) -> float:
    return tensor_bytes(tensor) if can_cross(tensor) else math.inf


def _together(graph: LayerGraph, index: dict[str, int]) -> tuple[tuple[int, int], ...]:
    last: dict[str, int] = {}
    pairs = []
    for layer in graph.layers:
        if layer.group and layer.name in index:
            if layer.group in last:
                pairs.append((last[layer.group], index[layer.name]))
            last[layer.group] = index[layer.name]
    return tuple(pairs)


def _readers_of_constants(graph: LayerGraph, constant: Collection[str]) -> dict[str, frozenset[str]]:
    """By name of a constant layer: the other layers that read it, directly or through further constants."""
    reading: dict[str, set[str]] = {}
    for layer in reversed(graph.layers):
        through = {layer.name} if layer.name not in constant else reading.get(layer.name, set())
        for other in graph.layers if constant else ():
            if other.name in constant and {tensor.name for tensor in other.outputs} & set(layer.inputs):
                reading.setdefault(other.name, set()).update(through)
    return {name: frozenset(reading.get(name, set())) for name in constant}
