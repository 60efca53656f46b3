"""Cuts of one model between one edge and one cloud as arrays: what the cost function multiplies with conditions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edge_deploy.core.benchmark import Provenance
from edge_deploy.core.cut import Cut
from edge_deploy.core.errors import BadInput
from edge_deploy.core.layer_graph import LayerGraph
from edge_deploy.core.profile import ModelProfile, Power, Slowdown
from partitioner.edge_memory import edge_memories
from runtimes.codecs import load_codec
from runtimes.contracts import Codec

__all__ = ["CutTable", "build_cut_table", "check_fits", "codec_speed", "weakest"]

_WEAKEST_FIRST: tuple[Provenance, ...] = ("estimated", "emulated", "measured")
_NAMES_SHOWN = 5
_NONE = Slowdown()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CutTable:
    """C cuts; every array has shape (C,). Seconds are those of idle devices.

    Attributes:
        cuts: Ids.
        codec: How the boundary is encoded, e.g. "raw".
        edge_s: The edge half, with the overhead of one call when it is not empty.
        cloud_s: The same of the cloud half, for a request that gets there.
        encode_s: On the edge; `decode_s`: on the cloud.
        up_bytes: Of the encoded boundary; `down_bytes`: of the outputs that come back.
        edge_bytes: Weights and peak activations of the edge half.
        exit_share: Share of requests that end at an early exit on the edge and never cross.
        crosses: Whether the cloud half is not empty.
        power: Of the edge device; None where unknown.
        provenance: The weaker of the two profiles'; an estimate where the codec's times are one.
    """

    cuts: tuple[str, ...]
    codec: str
    edge_s: np.ndarray
    cloud_s: np.ndarray
    encode_s: np.ndarray
    decode_s: np.ndarray
    up_bytes: np.ndarray
    down_bytes: np.ndarray
    edge_bytes: np.ndarray
    exit_share: np.ndarray
    crosses: np.ndarray
    edge_cpu: Slowdown = _NONE
    edge_memory: Slowdown = _NONE
    cloud_cpu: Slowdown = _NONE
    cloud_memory: Slowdown = _NONE
    power: Power | None = None
    provenance: Provenance = "estimated"

    def __post_init__(self) -> None:
        if not self.cuts:
            raise BadInput("cut table: has no cuts; give at least one.")
        for name in ARRAYS:
            if np.shape(getattr(self, name)) != (len(self.cuts),):
                raise BadInput(f"cut table: {name} must have {len(self.cuts)} values, one a cut.")

    def index(self, cut: str) -> int:
        """Where the cut of this id stands.

        Raises:
            BadInput: There is none.
        """
        if cut not in self.cuts:
            raise BadInput(f"cut {cut}: not in the table; it has {', '.join(self.cuts[:_NAMES_SHOWN])}, ...")
        return self.cuts.index(cut)

    def only(self, keep: np.ndarray) -> CutTable:
        """The table of the cuts at `keep` (indices, or a mask of shape (C,))."""
        chosen = np.arange(len(self.cuts))[keep]
        arrays = {name: getattr(self, name)[chosen] for name in ARRAYS}
        return dataclasses.replace(self, cuts=tuple(self.cuts[i] for i in chosen), **arrays)


ARRAYS = (
    "edge_s",
    "cloud_s",
    "encode_s",
    "decode_s",
    "up_bytes",
    "down_bytes",
    "edge_bytes",
    "exit_share",
    "crosses",
)


def build_cut_table(
    graph: LayerGraph,
    cuts: Sequence[Cut],
    *,
    edge: ModelProfile,
    cloud: ModelProfile,
    codec: str = "raw",
    exits: Mapping[str, float] | None = None,
    coded_bytes: Mapping[str, float] | None = None,
) -> CutTable:
    """The table of `cuts` of `graph`.

    Args:
        codec: Name of a codec of `runtimes.codecs`, e.g. "raw" or "requantize:int8".
        exits: By layer name: share of requests that this layer's output answers. They do not cross; a half is one
            program, so that the edge runs all of its own for them too.
        coded_bytes: By cut id: mean bytes of the encoded boundary, measured; for codecs whose size the values decide.
            Cuts left out are priced at the most that the codec may send.

    Raises:
        BadInput: A profile does not fit the layers, a size is dynamic, or shares of exits exceed 1.
    """
    check_fits(edge, graph)
    check_fits(cloud, graph)
    order = {layer.name: index for index, layer in enumerate(graph.layers)}
    on_edge = _on_edge(cuts, order)
    shares = _exit_shares(exits or {}, order)
    edge_layer_s = np.array([edge.layer_s[name] for name in order])
    cloud_layer_s = np.array([cloud.layer_s[name] for name in order])
    crosses = np.asarray(~on_edge.all(axis=1))
    coder = load_codec(codec)
    guesses: tuple[Provenance, ...] = tuple(
        "estimated" for profile in (edge, cloud) if coder.encode_s_per_byte and codec not in profile.codec_s_per_byte
    )
    uncoded = np.array([float(cut.up_bytes) for cut in cuts])
    return CutTable(
        cuts=tuple(cut.id for cut in cuts),
        codec=codec,
        edge_s=on_edge @ edge_layer_s + np.where(on_edge.any(axis=1), edge.overhead_s, 0.0),
        cloud_s=~on_edge @ cloud_layer_s + np.where(crosses, cloud.overhead_s, 0.0),
        encode_s=uncoded * codec_speed(edge, codec)[0],
        decode_s=uncoded * codec_speed(cloud, codec)[1],
        up_bytes=np.array([_up_bytes(cut, coder, coded_bytes or {}) for cut in cuts], dtype=np.int64),
        down_bytes=np.array([cut.down_bytes for cut in cuts], dtype=np.int64),
        edge_bytes=edge_memories(graph, cuts, edge.memory_bytes),
        exit_share=on_edge @ shares,
        crosses=crosses,
        edge_cpu=edge.cpu,
        edge_memory=edge.memory,
        cloud_cpu=cloud.cpu,
        cloud_memory=cloud.memory,
        power=edge.power,
        provenance=weakest(edge.provenance, cloud.provenance, *guesses),
    )


def _up_bytes(cut: Cut, coder: Codec, coded_bytes: Mapping[str, float]) -> int:
    most = coder.encoded_bytes(cut.up)
    return most if coder.fixed_size or cut.id not in coded_bytes else min(most, round(coded_bytes[cut.id]))


def _on_edge(cuts: Sequence[Cut], order: Mapping[str, int]) -> np.ndarray:
    """Which layers each cut has on the edge; shape (C, layers)."""
    found = np.zeros((len(cuts), len(order)), dtype=bool)
    names = tuple(order)
    for row, cut in enumerate(cuts):
        count = len(cut.edge_layers)
        is_prefix = cut.edge_layers == names[:count]
        found[row, slice(count) if is_prefix else [order[name] for name in cut.edge_layers]] = True
    return found


def codec_speed(profile: ModelProfile, codec: str) -> tuple[float, float]:
    """Seconds of encoding and of decoding a byte: as measured on the device, else the codec's own estimate."""
    estimate = load_codec(codec)
    return profile.codec_s_per_byte.get(codec, (estimate.encode_s_per_byte, estimate.decode_s_per_byte))


def weakest(*provenances: Provenance) -> Provenance:
    """One estimate makes the whole an estimate."""
    return min(provenances, key=_WEAKEST_FIRST.index)


def check_fits(profile: ModelProfile, graph: LayerGraph) -> None:
    """Refuse a profile whose layers are not those of the graph.

    Raises:
        BadInput: Names the layers that one of them lacks.
    """
    names = [layer.name for layer in graph.layers]
    missing = [name for name in names if name not in profile.layer_s]
    foreign = sorted(set(profile.layer_s) - set(names))
    problems = [
        f"profile of {profile.artifact} on {profile.device}: {said} {_some(which)}; "
        "profile this very artifact again (`edge-deploy profile`)."
        for said, which in (("has no time for layer", missing), ("has times for layers the model lacks:", foreign))
        if which
    ]
    if problems:
        raise BadInput(*problems)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more


def _exit_shares(exits: Mapping[str, float], order: Mapping[str, int]) -> np.ndarray:
    unknown = sorted(set(exits) - set(order))
    if unknown:
        raise BadInput(f"exits: no layer named {_some(unknown)} in the model.")
    if any(not 0 <= share <= 1 for share in exits.values()) or sum(exits.values()) > 1 + 1e-9:
        raise BadInput(f"exits: shares {dict(exits)} must lie between 0 and 1 and not exceed 1 together.")
    shares = np.zeros(len(order))
    for name, share in exits.items():
        shares[order[name]] = share
    return shares
