"""A recognised recommender computed in NumPy: what its structure says, without the framework it came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from converters.recommender.model import Activation, Dense, Lookup, Recommender

__all__ = ["Trace", "activate", "apply_dense", "looked_up", "run_reference", "trace_reference"]

Trace = dict[str, np.ndarray]


def run_reference(
    model: Recommender, arrays: Mapping[str, np.ndarray], feeds: Mapping[str, np.ndarray], *, batch: int
) -> np.ndarray:
    """The output of `model` as float32 in the shape of `model.output`, for `batch` samples.

    Args:
        feeds: One array per input of `model`; ids outside their table are clamped to its first or last row.
    """
    values = trace_reference(model, arrays, feeds, batch=batch)["output"]
    shape = (batch, *model.output.shape[1:])
    shaped: np.ndarray = values.reshape(shape)
    return shaped


def trace_reference(
    model: Recommender,
    arrays: Mapping[str, np.ndarray],
    feeds: Mapping[str, np.ndarray],
    *,
    batch: int,
    layer: Callable[..., np.ndarray] | None = None,
    rows: Callable[..., np.ndarray] | None = None,
) -> Trace:
    """All intermediate values by name, each with the batch first.

    Names: each Dense by its own name and, before its activation, as NAME/linear; "lookup:K", "pairs",
    "top_input", "logit" (before the output activation), "output".

    Args:
        layer: Computes a Dense, called as `apply_dense`, which is the default.
        rows: Computes a look-up, called as `looked_up`, which is the default.
    """
    layer, rows = layer or apply_dense, rows or looked_up
    trace: Trace = {}
    bottom: np.ndarray | None = None
    if model.dense_input is not None and model.bottom:
        bottom = np.asarray(feeds[model.dense_input], np.float32).reshape(batch, -1)
        for dense in model.bottom:
            bottom = _layer(bottom, dense, arrays, trace, layer)
    for index, lookup in enumerate(model.lookups):
        trace[f"lookup:{index}"] = rows(model, lookup, arrays, feeds, batch=batch)
    trace["top_input"] = top = _interact(model, feeds, bottom, trace, batch=batch)
    for dense in model.top:
        top = _layer(top, dense, arrays, trace, layer)
    trace["logit"] = top
    trace["output"] = activate(top, model.output_activation)
    return trace


def _interact(
    model: Recommender, feeds: Mapping[str, np.ndarray], bottom: np.ndarray | None, trace: Trace, *, batch: int
) -> np.ndarray:
    inter = model.interaction
    if inter.kind == "dot":
        rows = [bottom if k < 0 else trace[f"lookup:{k}"] for k in inter.vectors]
        vectors = np.stack([row for row in rows if row is not None], axis=1)
        left = [a for a, _ in inter.pairs]
        right = [b for _, b in inter.pairs]
        trace["pairs"] = np.einsum("bpd,bpd->bp", vectors[:, left], vectors[:, right])
    parts = []
    for name in inter.top_inputs:
        kind, _, which = name.partition(":")
        if name == "bottom":
            assert bottom is not None
            parts.append(bottom)
        elif kind == "dense":
            parts.append(np.asarray(feeds[which], np.float32).reshape(batch, -1))
        else:
            parts.append(trace[name])
    return np.concatenate(parts, axis=1)


def looked_up(
    model: Recommender,
    lookup: Lookup,
    arrays: Mapping[str, np.ndarray],
    feeds: Mapping[str, np.ndarray],
    *,
    batch: int,
) -> np.ndarray:
    """The pooled vectors [batch, dim] of one look-up."""
    table = model.tables[lookup.table]
    ids = np.asarray(feeds[lookup.input])
    ids = ids.reshape(-1, batch).T if lookup.columns_first else ids.reshape(batch, -1)
    ids = ids[:, lookup.column : lookup.column + lookup.length]
    array = arrays[table.weight]
    if table.robe is not None:
        rows = np.asarray(array[table.robe.slots(ids), 0], np.float32)
    else:
        rows = np.asarray(array[np.clip(ids, 0, table.rows - 1)], np.float32)
    if lookup.pooling == "none":
        return rows[:, 0]
    counted = np.ones(ids.shape, np.float32)
    if lookup.padding_index is not None:
        counted = (ids != lookup.padding_index).astype(np.float32)
    weights = counted
    if lookup.weights_input is not None:
        weights = counted * np.asarray(feeds[lookup.weights_input], np.float32).reshape(batch, -1)
    pooled: np.ndarray = (rows * weights[:, :, None]).sum(1)
    if lookup.pooling == "mean":
        pooled = pooled / np.maximum(counted.sum(1, keepdims=True), 1)
    return pooled


def _layer(
    x: np.ndarray,
    dense: Dense,
    arrays: Mapping[str, np.ndarray],
    trace: Trace,
    compute: Callable[..., np.ndarray],
) -> np.ndarray:
    linear = trace[f"{dense.name}/linear"] = compute(x, dense, arrays)
    trace[dense.name] = activate(linear, dense.activation)
    return trace[dense.name]


def apply_dense(x: np.ndarray, dense: Dense, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """One fully connected layer on [batch, in], before its activation."""
    y: np.ndarray = x @ np.asarray(arrays[dense.weight]).T
    if dense.bias is not None:
        y = y + arrays[dense.bias]
    return y


def activate(x: np.ndarray, activation: Activation) -> np.ndarray:
    """The activation function of this name."""
    if activation == "relu":
        x = np.maximum(x, 0)
    if activation == "sigmoid":
        # In float64, where neither exp(-x) overflows for any float32 logit of interest nor small results are lost.
        x = (1 / (1 + np.exp(-np.clip(x.astype(np.float64), -500, 500)))).astype(np.float32)
    if activation == "tanh":
        x = np.tanh(x)
    return x
