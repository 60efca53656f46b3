"""How far the tables and linears of a recommender's ExecuTorch files are from its float weights and values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from converters.contracts import LowerRequest
from converters.executorch.layer_errors import (
    LARGEST_WEIGHT,
    SAMPLES,
    OutputErrors,
    WeightErrors,
    collected,
    weight_error,
)
from converters.executorch.traced import constant, layer_nodes, run_traced
from converters.recommender.model import Dense, Recommender, load
from converters.recommender.traits import recommender_traits
from edge_deploy.core.layer_errors import LayerErrors

__all__ = ["layer_errors"]


def layer_errors(request: LowerRequest) -> LayerErrors:
    """Compare the rows that stand in `model.pte` and the linears of `quantized.pt2` with the float recommender.

    Outputs of linears are compared before their activation; those of look-ups, which several tables share, are not.

    Raises:
        BadInput: The files cannot be read, or do not belong together.
    """
    from converters.executorch.recommender_restore import restore

    captured = request.captured
    assert captured.recommender is not None, "the caller asks for recommenders only"
    model, arrays = load(captured.recommender)
    graph = restore(request.folder)
    nodes = layer_nodes(graph)
    linears = {dense.name: nodes[dense.name] for dense in (*model.bottom, *model.top) if dense.name in nodes}
    weights = _table_errors(graph, model, arrays, request) | _linear_errors(graph, model, arrays, linears)
    outputs = OutputErrors()
    if request.calibration is not None and not any(lookup.columns_first for lookup in model.lookups):
        outputs.compare(_traces(graph, model, arrays, linears, request))
    order = [dense.name for dense in model.bottom] + [table.name for table in model.tables]
    return collected([*order, *(dense.name for dense in model.top)], outputs, weights)


def _table_errors(
    graph: Any, model: Recommender, arrays: Mapping[str, np.ndarray], request: LowerRequest
) -> WeightErrors:
    from converters.executorch.program import attribute
    from converters.executorch.recommender_module import group_lookups

    spec, _ = request.spec.bound(recommender_traits(model, table_op="aten.embedding", dense_op="aten.linear"))
    bits = {table.name: spec.bits_for(table.name) for table in model.tables}
    found: WeightErrors = {}
    for number, group in enumerate(group_lookups(model, bits)):
        if group.robe is not None or group.hot_bits:
            continue  # rows that do not stand below one another; their outputs are compared all the same
        stored = attribute(graph, f"lookups.{number}")
        columns = [model.lookups[index].table for index in group.lookups for _ in range(model.lookups[index].length)]
        first = 0
        for index in group.tables:
            table = model.tables[index]
            rows = slice(first, first + table.rows, -(-table.rows * table.dim // LARGEST_WEIGHT))
            got = _real_rows(stored, rows, group.bits, columns.index(index))
            error = weight_error(np.asarray(arrays[table.weight][:: rows.step]), got)
            if error is not None:
                found[table.name] = error
            first += table.rows
    return found


def _real_rows(stored: Any, rows: slice, bits: int, column: int) -> np.ndarray:
    """Rows of a group's tables, dequantized with their own scales or with the one of the table behind a column."""
    values: np.ndarray = stored.rows[rows].numpy()
    if bits == 32:
        return values
    if bits == 4:
        values = np.stack([values >> 4, values & 15], axis=-1).reshape(len(values), -1).astype(np.float32) - 8
    scales = stored.scales[rows] if hasattr(stored, "scales") else stored.table_scales.reshape(-1)[column]
    real: np.ndarray = values.astype(np.float32) * scales.float().numpy().reshape(-1, 1)
    return real


def _linear_errors(
    graph: Any, model: Recommender, arrays: Mapping[str, np.ndarray], linears: Mapping[str, Any]
) -> WeightErrors:
    found: WeightErrors = {}
    for dense in (*model.bottom, *model.top):
        weight = constant(graph, linears[dense.name].args[1]) if dense.name in linears else None
        error = None if weight is None else weight_error(np.asarray(arrays[dense.weight]), weight.float().numpy())
        if error is not None:
            found[dense.name] = error
    return found


def _traces(
    graph: Any,
    model: Recommender,
    arrays: Mapping[str, np.ndarray],
    linears: Mapping[str, Any],
    request: LowerRequest,
) -> Iterator[tuple[int, dict[str, np.ndarray], dict[str, np.ndarray]]]:
    from converters.executorch.calibration import calibration_batches
    from converters.executorch.program import example_inputs
    from converters.recommender.reference import trace_reference

    assert request.calibration is not None
    known = {info.name: info for info in request.captured.inputs}
    inputs = tuple(known.get(info.name, info) for info in model.inputs)
    batch = int(example_inputs(inputs, request.captured.batches)[0].shape[0])
    seen = 0
    for arguments in calibration_batches(request.calibration, inputs, batch):
        feeds = {info.name: value.numpy() for info, value in zip(inputs, arguments, strict=True)}
        want = trace_reference(model, arrays, feeds, batch=batch)
        yield batch, _before_activation(want, (*model.bottom, *model.top)), run_traced(graph, arguments, dict(linears))
        seen += batch
        if seen >= SAMPLES:
            return


def _before_activation(trace: Mapping[str, np.ndarray], layers: Sequence[Dense]) -> dict[str, np.ndarray]:
    return {dense.name: np.asarray(trace[f"{dense.name}/linear"], np.float64) for dense in layers}
