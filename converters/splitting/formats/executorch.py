"""Cut an ExecuTorch artifact: a `.pte` cannot be cut, so its quantized program is, and each half lowered as it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from converters.splitting.contracts import Half, Parent, WrittenCut
from edge_deploy.core.artifact import Artifact, Signature
from edge_deploy.core.child import run_in_child
from edge_deploy.core.cut import Cut
from edge_deploy.core.errors import BadInput, Unsupported
from edge_deploy.core.layer_graph import LayerGraph
from edge_deploy.core.serde import from_json
from edge_deploy.core.tensor import TensorInfo

__all__ = ["write_halves"]

QUANTIZED = "quantized.pt2"


def write_halves(parent: Parent, cuts: Sequence[Cut], folders: Sequence[Path]) -> tuple[WrittenCut, ...]:
    """Write the halves of each cut into `head` and `tail` of its folder, in one child process.

    Raises:
        BadInput: The artifact's program is missing, or is not the one of its layers.
        Unsupported: A half cannot be exported.
        ToolchainError: Lowering fails.
    """
    if not any(entry.role == "quantized-program" for entry in parent.artifact.files):
        raise BadInput(f"{parent.folder}: has no {QUANTIZED}, and a .pte cannot be cut; convert again.")
    arguments = {"parent": parent, "cuts": list(cuts), "folders": list(folders)}
    stage = f"{parent.artifact.name}: lower {len(cuts)} cuts"
    found = run_in_child("converters.splitting.formats.executorch:write_here", arguments, stage=stage)
    return tuple(from_json(WrittenCut, each, where=stage) for each in found)


def write_here(parent: Any, cuts: list[Any], folders: list[str]) -> list[WrittenCut]:
    """The child's part of `write_halves`."""
    whole = _Whole.of(from_json(Parent, parent, where="parent"))
    return [
        _write(whole, from_json(Cut, cut, where="cut"), Path(folder)) for cut, folder in zip(cuts, folders, strict=True)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Whole:
    """The parent's quantized graph with everything in it, and its layers by name.

    Attributes:
        stored4: Layers whose weights stand two to a byte beside the program.
        tables_beside: Rows of look-ups stand beside it.
    """

    artifact: Artifact
    program: Any
    flow: Any
    stored4: frozenset[str]
    tables_beside: bool
    batches: tuple[int, ...]

    @staticmethod
    def of(parent: Parent) -> _Whole:
        from converters.executorch.flow import read_flow
        from converters.executorch.recommender_restore import restore
        from runtimes.formats.nibble_ptd import is_packed
        from runtimes.formats.pte import read_pte

        artifact = parent.artifact
        program = restore(parent.folder)
        inputs = tuple(info.name for info in artifact.graph.inputs)
        flow = read_flow(program, inputs, artifact.graph.outputs)
        found = [(layer.name, tuple(name for _, name in layer.makes)) for layer in flow.layers]
        known = [(layer.name, tuple(info.name for info in layer.outputs)) for layer in artifact.graph.layers]
        if found != known:
            raise BadInput(
                f"{parent.folder}: the layers of {QUANTIZED} are not those of the manifest; it was written by another "
                "version: convert again."
            )
        beside = [parent.folder / entry.path for entry in artifact.files if entry.role == "data"]
        packed = any(is_packed(path) for path in beside)
        named = read_pte(parent.model).operators if packed else ()
        return _Whole(
            artifact=artifact,
            program=program,
            flow=flow,
            stored4=frozenset(operator.layer for operator in named if operator.weight_bytes < 0),
            tables_beside=bool(beside) and not packed,
            batches=_batches(artifact),
        )


def _batches(artifact: Artifact) -> tuple[int, ...]:
    """Sizes that the dynamic dimensions of the artifact's inputs take in its signatures."""
    found = []
    for signature in artifact.signatures:
        for info, sized in zip(artifact.graph.inputs, signature.inputs, strict=True):
            found += [size for general, size in zip(info.shape, sized.shape, strict=True) if general < 0]
    return tuple(dict.fromkeys(found)) or (1,)


def _write(whole: _Whole, cut: Cut, folder: Path) -> WrittenCut:
    graph, flow = whole.artifact.graph, whole.flow
    keys = {name: key for key, name in flow.names.items()}
    edge = frozenset(cut.edge_layers)
    raw = {info.name for info in graph.inputs}
    made_here = {name for layer in flow.layers if layer.name in edge for _, name in layer.makes}
    ends = {name: (node, ()) for name, node in zip(graph.outputs, flow.outputs, strict=True)}
    crossing = [info.name for info in cut.up if info.name not in raw]
    head_wants = {name: ends.get(name, keys[name]) for name in crossing}
    head_wants |= {name: ends[name] for name in graph.outputs if name in made_here}
    tail_wants = {info.name: ends[info.name] for info in cut.down}
    used = {name for layer in graph.layers if layer.name in edge for name in layer.inputs} & raw
    head_takes = [name for name in (info.name for info in graph.inputs) if name in used]
    return WrittenCut(
        cut=cut,
        head=_half(whole, "head", head_takes, head_wants, edge, folder),
        tail=_half(whole, "tail", [info.name for info in cut.up], tail_wants, _others(graph, edge), folder),
    )


def _others(graph: LayerGraph, edge: frozenset[str]) -> frozenset[str]:
    return frozenset(layer.name for layer in graph.layers) - edge


def _half(
    whole: _Whole,
    side: Literal["head", "tail"],
    takes: Sequence[str],
    wants: Mapping[str, Any],
    layers: frozenset[str],
    folder: Path,
) -> Half | None:
    from converters.executorch.cut_program import build_half
    from converters.executorch.lowering import write_program
    from converters.executorch.program import LAYER, tidy
    from converters.executorch.recommender import export_graph
    from runtimes.formats.pte import read_facts

    if not wants:
        return None
    target = folder / side
    target.mkdir(parents=True)
    for layer in whole.flow.layers:  # so that every name survives another export
        layer.node.meta["custom"] = {**layer.node.meta.get("custom", {}), LAYER: layer.name}
    keys = {name: key for key, name in whole.flow.names.items()}
    made = build_half(whole.program, {keys[name]: name for name in takes}, list(wants.values()))
    tidy(made)
    infos = _infos(whole.artifact.graph)
    inputs = tuple(infos[name] for name in takes)
    _refuse_odd_dynamic(inputs)
    program = export_graph(made, inputs, whole.batches)
    written = write_program(program, target, stored4=whole.stored4 & layers, tables_beside=whole.tables_beside)
    return Half(
        side=side,
        files=written.files,
        signatures=_signatures(whole, inputs, tuple(infos[name] for name in wants)),
        graph=_restricted(whole.artifact.graph, inputs, tuple(wants), layers),
        facts=read_facts(target / "model.pte"),
    )


def _infos(graph: LayerGraph) -> dict[str, TensorInfo]:
    return {info.name: info for info in (*graph.inputs, *(info for layer in graph.layers for info in layer.outputs))}


def _refuse_odd_dynamic(inputs: Sequence[TensorInfo]) -> None:
    several = [info.name for info in inputs if sum(size < 0 for size in info.shape) > 1]
    if several:
        raise Unsupported(f"{', '.join(several)} would cross with several dynamic sizes; convert with one --batch.")


def _signatures(whole: _Whole, inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> tuple[Signature, ...]:
    found = []
    several = len(whole.artifact.signatures) > 1
    for signature, batch in zip(
        whole.artifact.signatures, whole.batches if several else whole.batches[:1], strict=True
    ):
        known = {info.name: info for info in (*signature.inputs, *signature.outputs)}

        def sized(info: TensorInfo, batch: int = batch, known: dict[str, TensorInfo] = known) -> TensorInfo:
            whole_one = known.get(info.name)
            return whole_one or replace(info, shape=tuple(batch if size < 0 else size for size in info.shape))

        found.append(
            Signature(name=signature.name, inputs=tuple(map(sized, inputs)), outputs=tuple(map(sized, outputs)))
        )
    return tuple(found)


def _restricted(
    graph: LayerGraph, inputs: tuple[TensorInfo, ...], outputs: tuple[str, ...], names: frozenset[str]
) -> LayerGraph:
    return LayerGraph(
        inputs=inputs, outputs=outputs, layers=tuple(layer for layer in graph.layers if layer.name in names)
    )
