"""Which halves are worth their memory: those that promise the least latency under the conditions of the moment."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["most_useful"]


def most_useful(
    expected_s: Sequence[float], sizes: Sequence[int], budget_bytes: float, *, always: Sequence[int] = ()
) -> tuple[int, ...]:
    """Indices of the halves to keep loaded: `always` first, then by expected latency as far as the budget goes.

    A half that does not fit is passed over for a smaller one behind it. Ties go to the lower index.

    Args:
        expected_s: Latency of each cut; infinite for one that cannot answer now.
    """
    kept = list(dict.fromkeys(always))
    used = sum(sizes[index] for index in kept)
    for index in sorted(range(len(sizes)), key=lambda index: (expected_s[index], index)):
        if index not in kept and used + sizes[index] <= budget_bytes:
            kept.append(index)
            used += sizes[index]
    return tuple(kept)
