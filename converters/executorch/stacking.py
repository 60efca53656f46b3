"""Samples go through a program several at a time, although it was traced with fewer, where it allows: much faster.

A graph that was traced with one sample computes many where no operator has the batch written down. Reshapes do; they
are given a free batch for the time of the calibration. Whether that is right is tried, not read off: several samples
together must give what they give one batch after another.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from converters.executorch.calibration import Samples

__all__ = ["free_batch", "stacked"]

MOST_TOGETHER = 32  # times the traced batch
MOST_VALUES = 1 << 23  # in the largest tensor; beyond, more samples at a time are no faster
TRIED = 3
CLOSE = 1e-4  # of the largest output: sums in another order round differently
# Their states have the batch written down, and PyTorch ends the process where it is another.
RECURRENT = ("aten.lstm", "aten.gru", "aten.rnn", "aten.quantized_lstm", "aten.quantized_gru")


@contextmanager
def stacked(graph: Any, samples: Samples) -> Iterator[Samples]:
    """The same samples in batches as large as `graph` takes them; as they are where it takes no other batch.

    Args:
        graph: A float or prepared graph module without random operators; it is called on a few samples, and changed
            inside the block.
    """
    largest = max((math.prod(_shape(node)) for node in graph.graph.nodes), default=1)
    together = min(MOST_TOGETHER, MOST_VALUES // max(largest, 1))
    if together < 2 or any(str(node.target).startswith(RECURRENT) for node in graph.graph.nodes):
        yield samples
        return
    freed = _free_batch(graph, samples.batch)
    checks, graph._forward_pre_hooks = graph._forward_pre_hooks, OrderedDict()  # an exported program's, of its sizes
    try:
        if _takes(graph, samples):
            yield replace(samples, batch=samples.batch * together, is_fixed=samples.batch > 1)
            return
    finally:
        graph._forward_pre_hooks = checks
        _restore(graph, freed)
    yield samples


def free_batch(graph: Any, samples: Samples) -> bool:
    """Let `graph` take any number of samples from now on; False, and nothing changed, where it takes no other.

    Args:
        graph: A float graph module without random operators; it is called on a few samples.
        samples: At least two batches of them.
    """
    if any(str(node.target).startswith(RECURRENT) for node in graph.graph.nodes):
        return False
    freed = _free_batch(graph, samples.batch)
    checks, graph._forward_pre_hooks = graph._forward_pre_hooks, OrderedDict()
    if _takes(graph, samples):
        return True
    graph._forward_pre_hooks = checks
    _restore(graph, freed)
    return False


def _shape(node: Any) -> tuple[int, ...]:
    value = getattr(node, "meta", {}).get("val")
    sizes = getattr(value, "shape", ())
    return tuple(size if isinstance(size, int) else 1 for size in sizes)


def _free_batch(graph: Any, batch: int) -> dict[Any, tuple[Any, ...]]:
    """Let the first size of reshapes follow from the others; returns the arguments that they had."""
    import torch

    aten = torch.ops.aten
    had = {}
    for node in graph.graph.nodes:
        if node.target not in (aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.expand.default):
            continue
        sizes = list(node.args[1])
        if sizes and sizes[0] == batch and -1 not in sizes and _shape(node.args[0])[:1] == (batch,):
            had[node] = node.args
            node.args = (node.args[0], [-1, *sizes[1:]], *node.args[2:])
    if had:
        graph.recompile()
    return had


def _restore(graph: Any, had: dict[Any, tuple[Any, ...]]) -> None:
    for node, arguments in had.items():
        node.args = arguments
    if had:
        graph.recompile()


def _takes(graph: Any, samples: Samples) -> bool:
    """Whether the first batches together give what each of them gives alone."""
    import torch

    few = list(samples.batches(most=TRIED * samples.batch))
    if len(few) < 2:
        return False
    try:
        with torch.no_grad():
            apart = [_results(graph(*batch)) for batch in few]
            joined = _results(graph(*(torch.cat(arrays) for arrays in zip(*few, strict=True))))
    except (RuntimeError, IndexError, ValueError, TypeError, AssertionError):
        return False
    for place, found in enumerate(joined):
        wanted = torch.cat([results[place] for results in apart]).double()
        if found.shape != wanted.shape:
            return False
        if not torch.allclose(found.double(), wanted, rtol=0, atol=CLOSE * float(wanted.abs().max()), equal_nan=True):
            return False
    return True


def _results(found: Any) -> tuple[Any, ...]:
    return tuple(found) if isinstance(found, (tuple, list)) else (found,)
