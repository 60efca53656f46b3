"""Settle the shapes of a model's inputs: batch sizes and dynamic dimensions become numbers, or are refused by name."""

from __future__ import annotations

import dataclasses
import difflib

from converters.contracts import CaptureRequest
from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo

__all__ = ["settle"]


def settle(found: tuple[TensorInfo, ...], request: CaptureRequest) -> tuple[TensorInfo, ...]:
    """The inputs with every dimension but the batch fixed; a dynamic batch becomes the one size asked for, or stays -1.

    Args:
        found: Inputs as the model declares them; -1 stands for a dynamic dimension.
        request: Its `shapes` and `inputs` give sizes by name, with the batch first or without it.

    Raises:
        BadInput: A dimension is still open, a size contradicts the model, or a name is unknown.
    """
    given = {info.name: info.shape for info in request.inputs} | dict(request.shapes or {})
    names = [info.name for info in found]
    problems = []
    for name in given:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {close[0]}?" if close else f"the model's inputs: {', '.join(names)}."
            problems.append(f"{request.source}: input {name}: the model has none of this name; {hint}")
    settled = []
    for info in found:
        try:
            settled.append(dataclasses.replace(info, shape=_settle_one(info, given.get(info.name), request)))
        except BadInput as error:
            problems += error.problems
    if problems:
        raise BadInput(*problems)
    _refuse_several_batches(tuple(settled), request)
    return tuple(settled)


def _refuse_several_batches(infos: tuple[TensorInfo, ...], request: CaptureRequest) -> None:
    """Samples are told apart by the first dimension of every input, which must be the same batch."""
    fixed = {info.shape[0] for info in infos} - {-1}
    if len(fixed) > 1:
        sizes = ", ".join(f"{info.name} {info.shape[0]}" for info in infos)
        raise BadInput(
            f"{request.source}: the first dimensions of its inputs differ ({sizes}): must be the batch in each. Ids "
            "and offsets of several tables in one input must be one input a table, [batch, ids]; export it so."
        )


def _settle_one(info: TensorInfo, given: tuple[int, ...] | None, request: CaptureRequest) -> tuple[int, ...]:
    where = f"{request.source}: input {info.name}"
    if not info.shape:
        raise BadInput(f"{where}: is a scalar: every input must have the batch as its first dimension.")
    sample = list(info.shape[1:])
    if given is not None:
        sizes = _sample_sizes(given, info, where)
        for axis, (have, size) in enumerate(zip(sample, sizes, strict=True), start=1):
            if have not in (-1, size) and size != -1:
                raise BadInput(f"{where}: dimension {axis} was given as {size}; the model says {have}.")
        sample = [size if have == -1 else have for have, size in zip(sample, sizes, strict=True)]
    if -1 in sample:
        open_axes = ", ".join(str(axis) for axis, size in enumerate(sample, start=1) if size == -1)
        text = "x".join("?" if size == -1 else str(size) for size in sample)
        raise BadInput(
            f"{where}: dimension {open_axes} is dynamic (shape [batch, {', '.join(text.split('x'))}]); "
            f"pass --shape {info.name}:{text} with numbers in place of the question marks."
        )
    batch = info.shape[0]
    if batch == -1:
        batch = request.batches[0] if len(request.batches) == 1 else -1
    elif request.batches not in ((1,), (batch,)):
        asked = ", ".join(str(size) for size in request.batches)
        raise BadInput(f"{where}: the model's batch is fixed at {batch}; --batch {asked} cannot be had.")
    return (batch, *sample)


def _sample_sizes(given: tuple[int, ...], info: TensorInfo, where: str) -> tuple[int, ...]:
    rank = len(info.shape)
    if len(given) == rank:
        return given[1:]
    if len(given) == rank - 1:
        return given
    raise BadInput(f"{where}: {len(given)} sizes were given; the model's shape has {rank} dimensions, batch first.")
