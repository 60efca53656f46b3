"""Recognise a recommender in an exported program by its structure, and prove the recognition on numbers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.recommender.assemble import assemble
from converters.recommender.interpret import NotUnderstood, interpret
from converters.recommender.match import match
from converters.recommender.model import Recommender
from converters.recommender.reference import run_reference
from edge_deploy.core.tensor import TensorInfo

if TYPE_CHECKING:
    import torch

__all__ = ["random_feeds", "recognise"]

DYNAMIC_BATCH = 5  # at which a program with a dynamic batch is looked at; rarely the number of its id columns
TOLERANCE = 1e-4
SCALES = (1.0, 0.1, 10.0, 1.0, 0.1)  # of the random dense inputs; a saturated output at one scale proves nothing


def recognise(
    program: torch.export.ExportedProgram, inputs: tuple[TensorInfo, ...]
) -> tuple[Recommender, dict[str, np.ndarray]] | None:
    """The recommender that `program` computes, with its arrays (tables share the program's memory).

    None when the program has another structure, or when the structure read from it does not compute what the program
    computes on random inputs (1e-4 of the output's spread). Such a program takes the generic route.

    Args:
        inputs: The program's inputs in order; their names are the ones used in the result.
    """
    try:
        plain = _decomposed(program)
        shapes, batch = _shapes(plain, inputs)
        seen = interpret(plain, shapes)
        output = seen.output.labels
        first = output.reshape(batch, -1)[0].numpy()
        matched = match(seen.labels, first)
        model, arrays = assemble(matched, inputs=inputs, shapes=shapes, batch=batch, output_shape=tuple(output.shape))
    except NotUnderstood:
        return None
    return (model, arrays) if _proven(program, model, arrays, shapes, batch) else None


def _decomposed(program: Any) -> Any:
    try:
        return program.run_decompositions()
    except Exception as error:  # whatever torch cannot decompose is no recommender of ours
        raise NotUnderstood(f"{type(error).__name__}: {error}") from error


def _shapes(program: Any, inputs: tuple[TensorInfo, ...]) -> tuple[list[tuple[int, ...]], int]:
    """Concrete shapes of the inputs, and the batch in them; a dynamic batch gets `DYNAMIC_BATCH`."""
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    user = [nodes[name] for name in program.graph_signature.user_inputs]
    if len(user) != len(inputs):
        raise NotUnderstood("inputs that are no tensors")
    symbols = {str(size) for node in user for size in node.meta["val"].shape if not isinstance(size, int)}
    if len(symbols) > 1:
        raise NotUnderstood("several dynamic dimensions")
    dynamic = DYNAMIC_BATCH
    for bounds in program.range_constraints.values():
        # The bounds are symbolic integers or infinities, which compare but do not all convert.
        dynamic = int(bounds.lower) if bool(bounds.lower > dynamic) else dynamic
        dynamic = int(bounds.upper) if bool(bounds.upper < dynamic) else dynamic
    shapes = [tuple(size if isinstance(size, int) else dynamic for size in node.meta["val"].shape) for node in user]
    if symbols:
        return shapes, dynamic
    output = next(node for node in program.graph.nodes if node.op == "output").args[0][-1]
    shape = output.meta["val"].shape
    return shapes, int(shape[0]) if len(shape) else 1


def _proven(
    program: Any, model: Recommender, arrays: dict[str, np.ndarray], shapes: list[tuple[int, ...]], batch: int
) -> bool:
    """Whether the structure and the program agree on random inputs; an output that never varies proves nothing."""
    import torch
    from torch.utils import _pytree as pytree

    module = program.module(check_guards=False)
    varied = False
    for seed, scale in enumerate(SCALES):
        # Where nothing but padding is an error of the source's (0 / 0), that is no reason against the structure.
        for empty in (True, False) if seed == 0 else (False,):
            feeds = random_feeds(model, shapes, seed=seed, scale=scale, empty=empty)
            tensors = [torch.from_numpy(feeds[info.name]).to(_torch_type(torch, info)) for info in model.inputs]
            args, kwargs = pytree.tree_unflatten(tensors, program.call_spec.in_spec)
            try:
                with torch.no_grad():
                    result = module(*args, **kwargs)
            except (RuntimeError, IndexError):
                return False
            wanted = pytree.tree_leaves(result)[0].float().numpy().reshape(-1)
            if np.isfinite(wanted).all():
                break
        got = run_reference(model, arrays, feeds, batch=batch).reshape(-1)
        if wanted.shape != got.shape or not np.isfinite(wanted).all():
            return False
        spread = float(np.abs(wanted).max())
        if not np.allclose(wanted, got, rtol=0, atol=TOLERANCE * spread + 1e-30):
            return False
        varied |= bool(spread > 0 and np.abs(wanted - 1).max() > 1e-6)
    return varied


def _torch_type(torch: Any, info: TensorInfo) -> Any:
    return getattr(torch, info.dtype)


def random_feeds(
    model: Recommender, shapes: list[tuple[int, ...]], *, seed: int, scale: float = 1.0, empty: bool = True
) -> dict[str, np.ndarray]:
    """Random inputs of these shapes: ids within their tables, a third of them padding where there is padding.

    Args:
        empty: The first sample's bags hold padding alone; otherwise every bag has at least one id.
    """
    rng = np.random.default_rng(seed)
    feeds: dict[str, np.ndarray] = {}
    for info, shape in zip(model.inputs, shapes, strict=True):
        if info.dtype.startswith("float"):
            feeds[info.name] = (rng.standard_normal(shape) * scale).astype(np.float32)
        else:
            feeds[info.name] = np.zeros(shape, np.int64)
    # Columns that several tables are indexed by end with ids that fit the smallest.
    for lookup in sorted(model.lookups, key=lambda found: -model.tables[found.table].rows):
        array = feeds[lookup.input]
        flat = array.reshape(-1, shapes_batch(array, lookup.columns_first))
        flat = flat.T if not lookup.columns_first else flat
        rows = model.tables[lookup.table].rows
        columns = slice(lookup.column, lookup.column + lookup.length)
        ids = rng.integers(0, rows, flat[columns].shape)
        padding = lookup.padding_index
        if padding is not None:
            ids[rng.random(ids.shape) < 1 / 3] = padding
            if empty:
                ids[:, 0] = padding
            else:
                ids[0] = (padding + 1) % rows
        flat[columns] = ids
    return feeds


def shapes_batch(array: np.ndarray, columns_first: bool) -> int:
    """The size to fold an id array to so that one axis is the batch."""
    return array.shape[-1] if columns_first else max(1, math.prod(array.shape[1:]))
