"""A recognised recommender becomes ExecuTorch files for phones: packed tables, dynamic INT8 linears, ids kept in range.

`quantized.pt2` holds the same program with two rows for each table; the rows stand in `model.pte` alone, as the
constants of its look-ups, so that no table is stored twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from converters.contracts import Captured, Lowered, LowerRequest
from converters.executorch.embeddings import NEEDS_KERNELS, NOT_FOR_MCU
from converters.executorch.recommender_hot import cold_scales, cold_tables
from converters.executorch.recommender_layers import Asked, dense_outcomes, table_outcomes, weight_bytes
from converters.executorch.recommender_module import Group, build_module, group_lookups, put_tables
from converters.executorch.recommender_readback import read_back
from converters.executorch.recommender_robe import shared_rows, stack_shared
from converters.executorch.recommender_stream import (
    StreamedTables,
    put_stubs,
    read_back_streamed,
    stream_tables,
    write_tables,
)
from converters.executorch.recommender_tables import StackedTables, check_finite, check_half_a_step, stack_tables
from converters.recommender.model import Recommender, load, source_key
from converters.recommender.resumable import Staging
from converters.recommender.trained import TrainedScale, load_trained, usable, with_trained_granularity
from converters.recommender.traits import recommender_traits
from converters.support import lookup
from edge_deploy.core.artifact import Signature
from edge_deploy.core.errors import Refusal, ToolchainError, Unsupported
from edge_deploy.core.precision import form_word, width_word
from edge_deploy.core.quant_spec import QuantSpec
from edge_deploy.core.tensor import TensorInfo
from edge_deploy.core.toolchain import versions

__all__ = ["export_graph", "lower"]

MINIMUM_RUNTIME = "executorch 1.0"


def lower(request: LowerRequest) -> Lowered:
    """Write the files of `request` into its folder; no calibration is needed, as activations are quantized on the fly.

    Raises:
        Unsupported: A microcontroller or INT8 inputs are asked for, or a linear stayed in float.
        BadInput: The recommender's folder is damaged, or weights are NaN or infinite.
        VerificationFailed: A stored row is off by more than half a step.
        ToolchainError: torch.export, PT2E or ExecuTorch fails.
    """
    _refuse_early(request.spec)
    from converters.executorch.flow import flow_graph, read_flow
    from converters.executorch.lowering import write_program
    from runtimes.formats.pte import read_facts

    captured, spec = request.captured, request.spec
    assert captured.recommender is not None, "the caller asks for recommenders only"
    model, arrays = load(captured.recommender)
    spec, idle = spec.bound(recommender_traits(model, table_op="aten.embedding", dense_op="aten.linear"))
    trained = load_trained(captured.recommender)
    spec, kept_scales = with_trained_granularity(spec, model, trained)
    layers = (*model.bottom, *model.top)
    tables_in_files = {table.weight for table in model.tables} if captured.is_streamed else set()
    for name, array in arrays.items():
        if (
            name not in tables_in_files and array.dtype.kind == "f"
        ):  # those are looked at once, when their scales are found
            check_finite(_owner(model, name), array)
    wanted = _widths(model, spec)
    groups = group_lookups(model, wanted.bits)
    streamed = _streamed(model, arrays, groups, spec, trained) if captured.is_streamed else ()
    stacked = tuple(each.stacked for each in streamed) or tuple(
        stack_shared(arrays[_shared(model, group)], bits=group.bits)
        if group.robe is not None
        else stack_tables(
            cold_tables(model, arrays, group),
            bits=group.bits,
            scale=spec.table_scale,
            trained=cold_scales(model, arrays, group, trained),
        )
        for group in groups
    )
    names = _group_names(model, stacked, groups)
    module = build_module(model, arrays, groups, stacked, wanted.bits)
    inputs = _ordered(model, captured)
    learned = {layer.name: usable(trained, layer.name, wanted.bits[layer.name]) for layer in layers}
    graph = _quantized_graph(module, inputs, captured.batches, _layer_names(model, names), wanted.bits, learned)
    kept = export_graph(graph, inputs, captured.batches)
    if streamed:
        put_stubs(graph, streamed)
        staging = (
            None if request.resume is None else Staging(folder=request.resume, key=source_key(captured.recommender))
        )
        program = export_graph(graph, inputs, captured.batches)
        write = partial(write_tables, streamed=streamed, folder=request.folder, staging=staging)
        written = write_program(program, request.folder, keep=kept, tables=write)
        found = read_back_streamed(request.folder, streamed)
    else:
        put_tables(graph, stacked)
        written = write_program(export_graph(graph, inputs, captured.batches), request.folder, keep=kept)
        found = read_back(request.folder / "model.pte", stacked)
    for group, tables in zip(groups, found, strict=True):
        own = [model.tables[index] for index in group.tables]
        if group.robe is not None:
            name = _shared(model, group)
            check_half_a_step(tables, [name], [shared_rows(arrays[name], group.bits)])
            continue
        check_half_a_step(tables, [table.name for table in own], cold_tables(model, arrays, group))
    facts = read_facts(request.folder / "model.pte")
    outcomes = (
        *table_outcomes(model, groups, stacked, names, facts, wanted),
        *dense_outcomes(layers, facts, wanted, float_allowed=spec.fallback_bits == 32),
    )
    outputs = captured.outputs or (model.output,)
    flow = read_flow(
        kept.module(check_guards=False), tuple(info.name for info in inputs), tuple(info.name for info in outputs)
    )
    needs = (NEEDS_KERNELS,) if any(s.bits != 32 and s.granularity == "row" for s in stacked) else ()
    return Lowered(
        files=written.files,
        signatures=_signatures(captured, inputs, model.output),
        graph=flow_graph(flow, inputs, outputs, weight_bytes(groups, names, outcomes, model)),
        outcomes=outcomes,
        toolchain=versions("torch", "torchao", "executorch"),
        minimum_runtime=MINIMUM_RUNTIME,
        warnings=(*idle, *kept_scales, *needs),
    )


def _streamed(
    model: Recommender,
    arrays: Mapping[str, np.ndarray],
    groups: Sequence[Group],
    spec: QuantSpec,
    trained: Mapping[str, TrainedScale],
) -> tuple[StreamedTables, ...]:
    """The tables of each group, still in their files."""
    return tuple(
        stream_tables(
            cold_tables(model, arrays, group),
            names=[model.tables[t].name for t in group.tables],
            bits=group.bits,
            scale=spec.table_scale,
            trained=cold_scales(model, arrays, group, trained),
        )
        for group in groups
    )


def _shared(model: Recommender, group: Group) -> str:
    """Name of the array that the tables of a group share."""
    return model.tables[group.tables[0]].weight


def _refuse_early(spec: QuantSpec) -> None:
    problems = []
    if spec.for_device == "mcu":
        problems.append(NOT_FOR_MCU)
    if spec.io == "int8":
        problems.append(
            "--io int8 with a recommender on executorch: its linears quantize their inputs on the fly, so that there "
            "is no scale an INT8 input could have; take --io float."
        )
    if problems:
        raise Unsupported(*problems)


def _widths(model: Recommender, spec: QuantSpec) -> Asked:
    asked = {table.name: spec.bits_for(table.name) for table in model.tables}
    bits, reasons, refusals = dict(asked), {}, []
    obstacles = {
        table.name: ("aten.embedding", _refused(width_word(asked[table.name]), "aten.embedding"))
        for table in model.tables
    }
    for layer in (*model.bottom, *model.top):
        settings = spec.settings_for(layer.name, default=spec.mlp_bits)
        asked[layer.name] = bits[layer.name] = settings.weight_bits
        # Static INT8 activations are what a recommender's linears quantize on the fly.
        form = form_word(settings.weight_bits, "dynamic" if settings.activations == "int8" else settings.activations)
        # Tables have no float16 form, and a program is float16 as a whole.
        op = "aten.embedding" if settings.weight_bits == 16 else "aten.linear"
        obstacles[layer.name] = ("aten.linear", _refused(form, op))
    for name, (op, reason) in obstacles.items():
        if reason and spec.fallback_bits == 32:
            bits[name], reasons[name] = 32, f"{reason}; left in float as permitted"
        elif reason:
            remedy = "pass --fallback float32 to leave it in float"
            refusals.append(Refusal(layer=name, op=op, reason=reason, remedy=remedy))
    if refusals:
        raise Unsupported(refusals=tuple(refusals))
    return Asked(asked=asked, bits=bits, reasons=reasons)


def _refused(form: str, op: str) -> str:
    """Why ExecuTorch refuses an operator in this form; empty where it does not."""
    entry = lookup("executorch", form, op)
    return entry.reason if entry.status == "refused" else ""


def _owner(model: Recommender, array: str) -> str:
    """The layer that an array belongs to."""
    for table in model.tables:
        if table.weight == array:
            return table.name
    return next(d.name for d in (*model.bottom, *model.top) if array in (d.weight, d.bias))


def _group_names(model: Recommender, stacked: Sequence[StackedTables], groups: Sequence[Group]) -> tuple[str, ...]:
    """How each look-up is called in the file: like its table, or "tables" where it serves several.

    Rows of bytes that hold two weights each get a name of their own, because the file calls them uint8.
    """
    taken = {table.name for table in model.tables} | {layer.name for layer in (*model.bottom, *model.top)}
    names = []
    for index, (group, tables) in enumerate(zip(groups, stacked, strict=True)):
        packed = tables.bits == 4 and tables.granularity == "table"
        if len(group.tables) == 1 and not packed and group.robe is None:
            names.append(model.tables[group.tables[0]].name)
            continue
        name = ("packed" if packed else "tables") + (f".{index}" if len(groups) > 1 else "")
        while name in taken:
            name = f"all.{name}"
        taken.add(name)
        names.append(name)
    return tuple(names)


def _layer_names(model: Recommender, groups: Sequence[str]) -> dict[str, str]:
    """Layer name by path of its weight in the module."""
    names = {f"lookups.{index}.rows": name for index, name in enumerate(groups)}
    for part, layers in (("bottom", model.bottom), ("top", model.top)):
        names |= {f"{part}.{index}.linear.weight": layer.name for index, layer in enumerate(layers)}
    return names


def _ordered(model: Recommender, captured: Captured) -> tuple[TensorInfo, ...]:
    """The captured inputs in the order of the module's forward."""
    known = {info.name: info for info in captured.inputs}
    return tuple(known.get(info.name, info) for info in model.inputs)


def export_graph(module: Any, inputs: Sequence[TensorInfo], batches: Sequence[int]) -> Any:
    """Export with every dynamic dimension as the batch, wherever it stands."""
    import torch

    from converters.executorch.program import example_inputs

    shapes: tuple[Any, ...] | None = None
    if len(set(batches)) > 1:
        batch = torch.export.Dim("batch", min=1, max=max(batches))
        shapes = tuple({axis: batch for axis, size in enumerate(info.shape) if size < 0} for info in inputs)
        if not any(shapes):
            raise Unsupported(f"--batch {', '.join(map(str, batches))}: the model's batch is fixed; give one --batch.")
        if isinstance(module, torch.nn.Module) and not isinstance(module, torch.fx.GraphModule):
            shapes = (shapes,)  # forward(*values) takes one variadic argument
    try:
        with torch.no_grad():
            return torch.export.export(module, example_inputs(inputs, batches), dynamic_shapes=shapes)
    except Exception as error:  # torch.export raises errors of many kinds
        raise ToolchainError(f"torch.export {torch.__version__}: {type(error).__name__}: {error}") from error


def _quantized_graph(
    module: Any,
    inputs: Sequence[TensorInfo],
    batches: Sequence[int],
    names: Mapping[str, str],
    bits: Mapping[str, int],
    learned: Mapping[str, np.ndarray | None],
) -> Any:
    """The unlifted graph with named layers and dynamically quantized linears.

    Args:
        learned: Scales of linears' output channels that training learned, by layer name.
    """
    import torch

    from converters.executorch.dynamic_linears import quantize_dynamic
    from converters.executorch.layers import layer_name
    from converters.executorch.program import LAYER, example_inputs, name_layers

    graph = export_graph(module, inputs, batches).module(check_guards=False)
    for node in graph.graph.nodes:
        paths = [str(arg.target) for arg in node.all_input_nodes if arg.op == "get_attr"]
        name = next((names[path] for path in paths if path in names), None)
        if node.op == "call_function" and name is not None:
            node.meta["custom"] = {**node.meta.get("custom", {}), LAYER: name}
    name_layers(graph)
    linear = {
        layer_name(node): bits.get(layer_name(node), 32)
        for node in graph.graph.nodes
        if node.target is torch.ops.aten.linear.default
    }
    starts = _starts(graph)
    first_rows = {path: start.clone() for path, start in starts.items()}
    for start in starts.values():
        start.zero_()  # while the tables have two rows, every look-up stays within them
    known = {name: learned[name] for name in linear if learned.get(name) is not None}
    converted = quantize_dynamic(graph, linear, example_inputs(inputs, batches), learned=known)
    for path, start in _starts(converted).items():
        start.copy_(first_rows[path])
    return converted


def _starts(graph: Any) -> dict[str, Any]:
    """The constants that move ids to the first row of their table, by path."""
    from converters.executorch.program import attribute

    paths = {str(node.target) for node in graph.graph.nodes if node.op == "get_attr"}
    return {path: attribute(graph, path) for path in paths if path.startswith("lookups.") and path.endswith(".start")}


def _signatures(captured: Captured, inputs: Sequence[TensorInfo], output: TensorInfo) -> tuple[Signature, ...]:
    """One for each batch size; all call the method "forward"."""

    def sized(info: TensorInfo, batch: int) -> TensorInfo:
        return replace(info, shape=tuple(batch if size < 0 else size for size in info.shape))

    outputs = captured.outputs or (output,)
    several = len(captured.batches) > 1
    return tuple(
        Signature(
            name=f"batch_{batch}" if several else "forward",
            inputs=tuple(sized(info, batch) for info in inputs),
            outputs=tuple(sized(info, batch) for info in outputs),
        )
        for batch in dict.fromkeys(captured.batches)
    )
