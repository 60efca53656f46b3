"""What an EmbeddingBag computes, in operators that every target has: look-up, multiplication, batched matrix product.

Two shapes of input, both without data-dependent shapes: bags of one length as ids [bags, length], and flat ids with the
offsets at which bags begin. Functions take and return torch tensors and import torch on use, so that they can be called
eagerly, traced, or inlined into a graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Pooling", "pool_flat", "pool_rows"]

Pooling: TypeAlias = Literal["sum", "mean"]


def pool_rows(
    weight: Tensor,
    ids: Tensor,
    *,
    pooling: Pooling,
    padding_index: int | None = None,
    sample_weights: Tensor | None = None,
) -> Tensor:
    """Bags of one length: ids [bags, length], or [bags] where each holds one id, to vectors [bags, dim].

    A bag of one id is a plain look-up, bags without weights or padding are a sum or mean over the looked-up rows, and
    everything else is a batched product of weights [bags, 1, length] with rows [bags, length, dim].

    Args:
        padding_index: Ids of this value do not enter the pool, nor the count that "mean" divides by.
        sample_weights: As many as ids, for "sum" only.
    """
    from torch.nn import functional

    if ids.dim() == 1:
        if padding_index is None and sample_weights is None:
            return functional.embedding(ids, weight)
        ids = ids.unsqueeze(1)
    if sample_weights is not None:
        sample_weights = sample_weights.reshape(ids.shape)
    if ids.shape[1] == 0:
        return weight.new_zeros((ids.shape[0], weight.shape[1]))
    if padding_index is None and sample_weights is None:
        if ids.shape[1] == 1:
            return functional.embedding(ids.squeeze(1), weight)
        rows = functional.embedding(ids, weight)
        return rows.sum(1) if pooling == "sum" else rows.mean(1)
    rows = functional.embedding(ids, weight)
    kept = None if padding_index is None else (ids != padding_index).to(weight.dtype)
    factors = _product(kept, sample_weights)
    pooled = (factors.unsqueeze(1) @ rows).squeeze(1)
    if pooling == "mean" and kept is not None:
        pooled = pooled / kept.sum(1, keepdim=True).clamp(min=1)
    return pooled


def pool_flat(
    weight: Tensor,
    ids: Tensor,
    offsets: Tensor,
    *,
    pooling: Pooling,
    includes_last: bool,
    padding_index: int | None = None,
    sample_weights: Tensor | None = None,
) -> Tensor:
    """Bags of any length: ids [n] and the offsets at which bags begin, to vectors [bags, dim]; empty bags give zeros.

    Membership of every id in every bag is a matrix [bags, n] of zeros and ones, and pooling its product with the rows.

    Args:
        includes_last: `offsets` has one entry more than there are bags, the end of the last bag.
        padding_index: Ids of this value do not enter the pool, nor the count that "mean" divides by.
        sample_weights: [n], for "sum" only.
    """
    import torch
    from torch.nn import functional

    rows = functional.embedding(ids, weight)
    if sample_weights is not None:
        rows = rows * sample_weights.unsqueeze(1)
    position = torch.arange(ids.shape[0], dtype=offsets.dtype, device=offsets.device)
    begun = (position.unsqueeze(0) >= offsets.unsqueeze(1)).to(weight.dtype)
    # Bags are neighbours: an id that a later bag has begun on is no longer this bag's. Differences of zeros and ones
    # are exact, and spare the concatenation of offsets with n, whose type differs between targets.
    member = begun[:-1] - begun[1:] if includes_last else begun - functional.pad(begun[1:], (0, 0, 0, 1))
    if padding_index is not None:
        member = member * (ids != padding_index).to(weight.dtype).unsqueeze(0)
    pooled = member @ rows
    if pooling == "mean":
        pooled = pooled / member.sum(1, keepdim=True).clamp(min=1)
    return pooled


def _product(first: Tensor | None, second: Tensor | None) -> Tensor:
    if first is None or second is None:
        present = second if first is None else first
        assert present is not None
        return present
    return first * second
