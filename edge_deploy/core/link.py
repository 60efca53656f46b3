"""When bytes arrive over a link whose rate changes: the same arithmetic for the simulator and the shaped proxy."""

from __future__ import annotations

import numpy as np

from edge_deploy.core.errors import BadInput

__all__ = ["bits_carried", "transfer_end"]


def bits_carried(trace_time: np.ndarray, rate_bps: np.ndarray, at_s: np.ndarray | float) -> np.ndarray:
    """Bits that a busy link carries from the first entry's start to `at_s`; negative before it.

    Args:
        trace_time: Start of each entry in seconds, strictly increasing; shape (n,).
        rate_bps: Rate of each entry, not negative; shape (n,). The first holds before the trace, the last after it.
        at_s: Any shape.
    """
    at = np.asarray(at_s, dtype=np.float64)
    carried = _carried_at_entries(trace_time, rate_bps)
    entry = np.clip(np.searchsorted(trace_time, at, side="right") - 1, 0, len(trace_time) - 1)
    return np.asarray(carried[entry] + (at - trace_time[entry]) * rate_bps[entry])


def transfer_end(
    trace_time: np.ndarray, rate_bps: np.ndarray, start_s: np.ndarray | float, n_bytes: np.ndarray | float
) -> np.ndarray:
    """When each transfer has left an otherwise idle link, delay not included.

    Transfers do not know of each other: for a queue, start each at the end of the one before.

    Args:
        trace_time: Start of each entry in seconds, strictly increasing; shape (n,).
        rate_bps: Bits per second of each entry, 0 while the link is down; shape (n,). The last holds for ever.
        start_s: When each transfer begins; any shape that broadcasts with `n_bytes`.
        n_bytes: Bytes of each; 0 bytes end when they start, also on a dead link.

    Returns:
        Seconds, shape of `start_s` and `n_bytes` broadcast; infinite where the link never carries all.

    Raises:
        BadInput: Times do not increase, or a rate or size is negative or not a number.
    """
    times = np.asarray(trace_time, dtype=np.float64)
    rates = np.asarray(rate_bps, dtype=np.float64)
    start, sizes = np.broadcast_arrays(np.asarray(start_s, dtype=np.float64), np.asarray(n_bytes, dtype=np.float64))
    if times.ndim != 1 or times.shape != rates.shape or not len(times) or (np.diff(times) <= 0).any():
        raise BadInput(f"link: {times.shape} times and {rates.shape} rates: must be as many, and times must increase.")
    if not (rates >= 0).all() or not np.isfinite(rates).all() or not (sizes >= 0).all():
        raise BadInput("link: rates must be finite and not negative, sizes not negative.")
    carried = _carried_at_entries(times, rates)
    target = bits_carried(times, rates, start) + 8 * sizes
    # The first entry that begins with at least `target` carried comes after the one in which the last bit leaves;
    # "left" makes a transfer that ends as an outage begins end there and not when the link is back.
    last = np.clip(np.searchsorted(carried, target, side="left") - 1, 0, len(times) - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        end = times[last] + (target - carried[last]) / rates[last]
    return np.where(sizes == 0, start, np.where(rates[last] > 0, np.maximum(end, start), np.inf))


def _carried_at_entries(trace_time: np.ndarray, rate_bps: np.ndarray) -> np.ndarray:
    """Bits carried when each entry begins; shape (n,)."""
    return np.concatenate(([0.0], np.cumsum(np.diff(trace_time) * rate_bps[:-1])))
