"""Cut a TFLite flatbuffer: operators of either half with the constants they read; what crosses becomes an output there
and an input here, in the type and with the quantization it has in the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from converters.splitting.contracts import Half, Parent, WrittenCut
from converters.splitting.formats.tflite_half import HalfBuilder, Piece
from converters.tflite.flatbuffer import read_model, write_model
from converters.tflite.structure import twin_of
from edge_deploy.core.artifact import FileEntry, Signature
from edge_deploy.core.cut import Cut
from edge_deploy.core.digest import file_sha256
from edge_deploy.core.errors import Refusal, Unsupported
from edge_deploy.core.layer_graph import LayerGraph
from runtimes.formats.tflite import read_facts, read_graph, read_signatures
from runtimes.formats.tflite_file import FileSubgraph, TfliteFile, read_tflite
from runtimes.formats.tflite_layers import layer_names, tensor_names

__all__ = ["write_halves"]

MODEL = "model.tflite"


def write_halves(parent: Parent, cuts: Sequence[Cut], folders: Sequence[Path]) -> tuple[WrittenCut, ...]:
    """Write the halves of each cut into `head` and `tail` of its folder; the file is read once.

    Raises:
        BadInput: The file is damaged.
        Unsupported: A state or an external buffer stands in the way, by layer.
    """
    whole = _Whole.of(parent)
    return tuple(_write(whole, cut, folder) for cut, folder in zip(cuts, folders, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """One signature: its subgraph, and tensor names at its border by tensor index."""

    name: str
    subgraph: int
    inputs: dict[int, str]
    outputs: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Whole:
    """The parent's file, read both for editing (`model`) and for looking (`file`), and its signatures."""

    parent: Parent
    model: Any
    file: TfliteFile
    graph: LayerGraph
    calls: tuple[_Call, ...]
    dropped: tuple[str, ...]

    @staticmethod
    def of(parent: Parent) -> _Whole:
        file, model = read_tflite(parent.model), read_model(parent.model)
        first, *others = _calls(parent, file)
        same = [call for call in others if twin_of(model, call.subgraph) == twin_of(model, first.subgraph)]
        dropped = [f"signature {call.name} computes another network and was left out" for call in others]
        return _Whole(
            parent=parent,
            model=model,
            file=file,
            graph=parent.artifact.graph,
            calls=(first, *same),
            dropped=tuple(note for call, note in zip(others, dropped, strict=True) if call not in same),
        )


def _calls(parent: Parent, file: TfliteFile) -> tuple[_Call, ...]:
    found = []
    for signature in parent.artifact.signatures:
        known = next((each for each in file.signatures if each.key == signature.name), None)
        if known is None:  # a file without signatures of its own: the primary subgraph, in call order
            graph = file.subgraphs[0]
            inputs = dict(zip(graph.inputs, (info.name for info in signature.inputs), strict=True))
            outputs = tuple(zip((info.name for info in signature.outputs), graph.outputs, strict=True))
            found.append(_Call(name=signature.name, subgraph=0, inputs=inputs, outputs=outputs))
            continue
        place = {index: at for at, index in enumerate(file.subgraphs[known.subgraph].outputs)}
        outputs = tuple(sorted(known.outputs, key=lambda entry: place.get(entry[1], len(place))))
        inputs = {index: name for name, index in known.inputs}
        found.append(_Call(name=signature.name, subgraph=known.subgraph, inputs=inputs, outputs=outputs))
    return tuple(found)


def _write(whole: _Whole, cut: Cut, folder: Path) -> WrittenCut:
    on_edge = frozenset(cut.edge_layers)
    constant = whole.graph.constant_layers
    names = layer_names(whole.file.subgraphs[whole.calls[0].subgraph])
    head = {place for place, name in enumerate(names) if name in on_edge - constant}
    tail = {place for place, name in enumerate(names) if name not in on_edge | constant}
    shared = {place for place, name in enumerate(names) if name in constant}
    _refuse_shared_state(whole, head, tail, names)
    return WrittenCut(
        cut=cut,
        head=_half(whole, "head", head, tail, shared, folder),
        tail=_half(whole, "tail", tail, head, shared, folder),
    )


def _refuse_shared_state(whole: _Whole, head: set[int], tail: set[int], names: Sequence[str]) -> None:
    """A state that operators keep between calls has one place."""
    graph = whole.file.subgraphs[whole.calls[0].subgraph]
    refusals = []
    for place in sorted(tail):
        operator = graph.operators[place]
        states = {index for index in operator.inputs if index >= 0 and graph.tensors[index].is_variable}
        others = [p for p in sorted(head) if states & set(graph.operators[p].inputs)]
        refusals += [
            Refusal(layer=names[place], op=operator.op, reason=f"shares its state with {names[other]} on the edge")
            for other in others
        ]
    if refusals:
        raise Unsupported(refusals=tuple(refusals))


def _half(
    whole: _Whole, side: Literal["head", "tail"], own: set[int], other: set[int], shared: set[int], folder: Path
) -> Half | None:
    """Build one half for every signature and write it; None when nothing it computes is wanted."""
    pieces = tuple(_piece(whole, call, side, own, other, shared) for call in whole.calls)
    if not pieces[0].outputs:
        return None
    path = folder / side / MODEL
    path.parent.mkdir(parents=True)
    built = HalfBuilder(whole.model, [tensor_names(graph) for graph in whole.file.subgraphs])
    size = write_model(built.build(pieces, name=side), path)
    entry = FileEntry(path=MODEL, role="model", bytes=size, sha256=file_sha256(path))
    return Half(
        side=side,
        files=(entry,),
        signatures=_described(whole, read_signatures(path)),
        graph=read_graph(path),
        facts=read_facts(path),
        notes=whole.dropped,
    )


def _piece(whole: _Whole, call: _Call, side: str, own: set[int], other: set[int], shared: set[int]) -> Piece:
    graph = whole.file.subgraphs[call.subgraph]
    made = {index for place in own for index in graph.operators[place].outputs if index >= 0}
    elsewhere = {index for place in other for index in graph.operators[place].outputs if index >= 0}
    read = {index for place in own for index in graph.operators[place].inputs if index >= 0}
    wanted_there = {index for place in other for index in graph.operators[place].inputs if index >= 0}
    shared_made = {index for place in shared for index in graph.operators[place].outputs if index >= 0}
    names = _names(whole, call, graph)
    raw = [index for index in graph.inputs if index in read]
    crossing = sorted(elsewhere & read)
    results = [
        (name, index) for name, index in call.outputs if index in made or (side == "head" and index in shared_made)
    ]
    given = sorted((made & wanted_there) - {index for _, index in results}) if side == "head" else []
    return Piece(
        signature=call.name,
        subgraph=call.subgraph,
        operators=_with_constants(graph, own, shared, {index for _, index in results}),
        inputs=tuple((names[index], index) for index in (*crossing, *raw)),
        outputs=(*((names[index], index) for index in given), *results),
    )


def _with_constants(graph: FileSubgraph, own: set[int], shared: set[int], results: set[int]) -> tuple[int, ...]:
    """`own` with those of `shared` whose results they read, directly or through one another."""
    needed = results | {index for place in own for index in graph.operators[place].inputs}
    chosen = set(own)
    for place in sorted(shared, reverse=True):
        if needed & set(graph.operators[place].outputs):
            chosen.add(place)
            needed |= set(graph.operators[place].inputs)
    return tuple(sorted(chosen))


def _names(whole: _Whole, call: _Call, graph: FileSubgraph) -> dict[int, str]:
    """What each tensor is called at the border of a half: as in the whole's signature, else as in its LayerGraph.

    Every signature uses the names of the first one's subgraph, so that a half is called alike at each batch size.
    """
    border = {**{index: name for name, index in call.outputs}, **call.inputs}
    taken = set(border.values())
    first = whole.file.subgraphs[whole.calls[0].subgraph]
    known = tensor_names(first)
    names = {**{index: tensor_names(graph)[index] for index in graph.inputs}, **border}
    for ours, theirs in zip(graph.operators, first.operators, strict=True):
        for index, original in zip(ours.outputs, theirs.outputs, strict=True):
            if index < 0 or index in border:
                continue
            name = known[original]
            while name in taken:  # a signature may call another tensor by this name
                name += "'"
            names[index] = name
    return names


def _described(whole: _Whole, found: tuple[Signature, ...]) -> tuple[Signature, ...]:
    """Signatures of a half, with what the whole's manifest knows of its own inputs and outputs."""
    known = {signature.name: signature for signature in whole.parent.artifact.signatures}
    described = []
    for signature in found:
        whole_one = known[signature.name]
        by_name = {info.name: info for info in (*whole_one.inputs, *whole_one.outputs)}
        described.append(
            replace(
                signature,
                inputs=tuple(by_name.get(info.name, info) for info in signature.inputs),
                outputs=tuple(by_name.get(info.name, info) for info in signature.outputs),
            )
        )
    return tuple(described)
