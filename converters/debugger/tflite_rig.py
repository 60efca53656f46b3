"""A float TFLite file and a quantized one beside it, operator by operator, on the builtin kernels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converters.debugger.contracts import Arrays, Grid, Seen, Site
from converters.debugger.tflite_edit import first_graph, write_forced, write_with_errors
from converters.debugger.tflite_runner import Runner, grid_of
from converters.tflite.flatbuffer import dtype_name, has_data, op_name, read_model, tensor_name
from converters.tflite.signatures import describe, match_inputs
from edge_deploy.core.artifact import Signature
from edge_deploy.core.errors import Unsupported
from edge_deploy.core.tensor import TensorInfo, encode_input

__all__ = ["TfliteRig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    """An operator of the float file and the one that stands for it in the artifact.

    Attributes:
        float_at: Its position; `at` in the artifact.
        slots: Operands that both compute from what came before: (operand, float tensor, tensor of the artifact).
        is_whole: Nothing else flows into either, so that the two can be compared by themselves.
    """

    layer: str
    op: str
    float_at: int
    at: int
    float_out: int
    out: int
    slots: tuple[tuple[int, int, int], ...]
    is_whole: bool


class TfliteRig:
    """See `converters.debugger.contracts.Rig`."""

    method = "LiteRT's builtin kernels, each operator of the artifact beside its own in the float file"

    def __init__(
        self,
        float_file: Path,
        artifact_file: Path,
        sources: tuple[TensorInfo, ...],
        file_inputs: tuple[TensorInfo, ...],
        work: Path,
    ) -> None:
        """Open both files.

        Args:
            float_file: As the quantizer saw it: tensors carry the names that they have in the artifact.
            sources: The source's inputs, in whose terms feeds are; `file_inputs`: the same as the files have them.
            work: Folder for the edited copies.

        Raises:
            Unsupported: The two have no layer in common.
            ToolchainError: LiteRT refuses a file.
        """
        self._sources = sources
        models = read_model(float_file), read_model(artifact_file)
        self._pairs = _pairs(*models)
        if not self._pairs:
            raise Unsupported(f"{artifact_file}: no layer has the name of one of the float model's.")
        self._float = Runner(float_file, keeps_all=True)
        self._artifact = Runner(artifact_file, keeps_all=True)
        self._signatures = tuple(describe(model, file_inputs, ())[0] for model in models)
        alone = [pair for pair in self._pairs if pair.is_whole]
        self._alone = {pair.layer: pair for pair in alone}
        self._float_names = write_forced(
            float_file, [(p.float_at, slot) for p in alone for slot, _, _ in p.slots], work / "float.forced.tflite"
        )
        self._names = write_forced(
            artifact_file, [(p.at, slot) for p in alone for slot, _, _ in p.slots], work / "artifact.forced.tflite"
        )
        self._forced_float = Runner(work / "float.forced.tflite", keeps_all=True)
        self._forced = Runner(work / "artifact.forced.tflite", keeps_all=True)
        self._inputs = _input_sites(self._float, self._signatures[0], self._artifact, self._pairs)
        self._places = {pair.layer: pair.float_out for pair in self._pairs}
        self._places |= {site.layer: index for site, index in self._inputs}
        self._error_names = write_with_errors(float_file, set(self._places.values()), work / "float.errors.tflite")
        self._with_errors = Runner(work / "float.errors.tflite", keeps_all=False)
        self._no_errors = {
            name: np.zeros([int(size) for size in self._with_errors.graph.tensors[index].shape], np.float32)
            for index, name in self._error_names.items()
        }
        self.batch = max([info.shape[0] for info in self._signatures[0].inputs if info.shape] + [1])
        artifact = self._artifact
        self.sites = (
            *(site for site, _ in self._inputs),
            *(
                Site(
                    layer=pair.layer,
                    op=pair.op,
                    kind="layer",
                    dtype=dtype_name(artifact.graph.tensors[pair.out]),
                    grid=grid_of(artifact.graph.tensors[pair.out]),
                )
                for pair in self._pairs
            ),
        )

    def see(self, feeds: Arrays) -> Seen:
        """Run both models, and every operator of either by itself."""
        first, second = (self._encoded(feeds, signature) for signature in self._signatures)
        self._float.run(first)
        self._artifact.run(second)
        want = {pair.layer: self._float.real(pair.float_out) for pair in self._pairs}
        got = {pair.layer: self._artifact.real(pair.out) for pair in self._pairs}
        forced_float, forced = dict(first), dict(second)
        for pair in self._alone.values():
            for slot, float_tensor, tensor in pair.slots:
                stored = self._artifact.as_stored(tensor, self._float.real(float_tensor))
                forced[self._names[pair.at, slot]] = stored
                rounded = self._artifact.as_real(tensor, stored).astype(np.float32)
                forced_float[self._float_names[pair.float_at, slot]] = rounded
        self._forced_float.run(forced_float)
        self._forced.run(forced)
        own_want = {layer: self._forced_float.real(pair.float_out) for layer, pair in self._alone.items()}
        own_got = {layer: self._forced.real(pair.out) for layer, pair in self._alone.items()}
        for site, index in self._inputs:
            values = self._float.real(index)
            rounded = values if site.grid is None else site.grid.rounded(values)
            want[site.layer] = own_want[site.layer] = values
            got[site.layer] = own_got[site.layer] = rounded
        return Seen(want=want, got=got, own_want=own_want, own_got=own_got)

    def answer(self, feeds: Arrays, errors: Arrays) -> np.ndarray:
        """The float file's first output with errors added at their sites."""
        given = self._encoded(feeds, self._signatures[0])
        graph = self._with_errors.graph
        for layer, index in self._places.items():
            name = self._error_names.get(index)
            if name is None:
                continue
            if layer in errors:
                shape = tuple(int(size) for size in graph.tensors[index].shape)
                given[name] = errors[layer].astype(np.float32).reshape(shape)
            else:
                given[name] = self._no_errors[name]
        output = self._with_errors.run(given)[self._signatures[0].outputs[0].name]
        found: np.ndarray = output.reshape(self.batch, -1).astype(np.float64)
        return found

    def _encoded(self, feeds: Arrays, signature: Signature) -> dict[str, np.ndarray]:
        feeding = match_inputs(signature, self._sources)
        return {
            info.name: encode_input(feeds[feeding[info.name].name], source=feeding[info.name], target=info)
            for info in signature.inputs
        }


def _pairs(float_model: Any, model: Any) -> tuple[_Pair, ...]:
    """Operators of the same name in the order of the artifact; those that only convert stand for none."""
    before, after = first_graph(float_model), first_graph(model)
    known = {
        tensor_name(before.tensors[op.outputs[0]]): at
        for at, op in enumerate(before.operators)
        if _is_real(before.tensors[op.outputs[0]])
    }
    found: dict[str, _Pair] = {}
    for at, operator in enumerate(after.operators):
        out = int(operator.outputs[0])
        layer = tensor_name(after.tensors[out])
        if layer not in known or layer in found or not _is_real(after.tensors[out]):
            continue
        other = before.operators[known[layer]]
        float_out = int(other.outputs[0])
        if list(before.tensors[float_out].shape) != list(after.tensors[out].shape):
            continue
        slots, is_whole = _slots(float_model, before, other, model, after, operator)
        found[layer] = _Pair(
            layer=layer,
            op=op_name(model, operator),
            float_at=known[layer],
            at=at,
            float_out=float_out,
            out=out,
            slots=slots,
            is_whole=is_whole,
        )
    return tuple(found.values())


def _slots(
    float_model: Any, before: Any, other: Any, model: Any, after: Any, operator: Any
) -> tuple[tuple[tuple[int, int, int], ...], bool]:
    def flows(owner: Any, graph: Any, op: Any) -> list[int]:
        """Operands that depend on the inputs, as real numbers."""
        fixed = _constants(owner, graph)
        used = [(slot, int(i)) for slot, i in enumerate(op.inputs) if int(i) >= 0]
        return [slot for slot, i in used if _is_real(graph.tensors[i]) and i not in fixed]

    first, second = flows(float_model, before, other), flows(model, after, operator)
    same = first == second and op_name(float_model, other) == op_name(model, operator)
    if not same:
        return (), not first and not second
    slots = tuple((slot, int(other.inputs[slot]), int(operator.inputs[slot])) for slot in first)
    fits = all(list(before.tensors[a].shape) == list(after.tensors[b].shape) for _, a, b in slots)
    return (slots, True) if fits else ((), False)


def _constants(model: Any, graph: Any) -> set[int]:
    """Stored tensors, and those that are made of them alone, such as widened float16 weights."""
    found = {index for index, tensor in enumerate(graph.tensors) if has_data(model, tensor)}
    for operator in graph.operators:
        if all(int(i) < 0 or int(i) in found for i in operator.inputs):
            found |= {int(i) for i in operator.outputs}
    return found


def _is_real(tensor: Any) -> bool:
    return dtype_name(tensor) == "float32" or grid_of(tensor) is not None


def _input_sites(
    runner: Runner, signature: Signature, artifact: Runner, pairs: tuple[_Pair, ...]
) -> tuple[tuple[Site, int], ...]:
    """Float inputs, each with the grid in which the artifact's layers read it."""
    found = []
    for info in signature.inputs:
        index = runner.inputs[info.name]
        if dtype_name(runner.graph.tensors[index]) != "float32":
            continue
        readers = [b for pair in pairs for _, a, b in pair.slots if a == index]
        grids: list[tuple[Grid, str]] = []
        for tensor in readers:
            grid = grid_of(artifact.graph.tensors[tensor])
            if grid is not None:
                grids.append((grid, dtype_name(artifact.graph.tensors[tensor])))
        grid, dtype = grids[0] if grids and len(grids) == len(readers) else (None, "float32")
        found.append((Site(layer=info.name, op="INPUT", kind="input", dtype=dtype, grid=grid), index))
    return tuple(found)
