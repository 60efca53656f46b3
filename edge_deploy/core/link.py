"""When bytes arrive over a link whose rate changes: the same arithmetic for the simulator and the shaped proxy."""

from __future__ import annotations

import numpy as np

from edge_deploy.core.errors import BadInput

__all__ = ["RateCurve", "transfer_end"]


class RateCurve:
    """The rate of one direction over time and its integral; made once, asked often.

    Args:
        time_s: Start of each entry in seconds, strictly increasing; shape (n,).
        rate_bps: Bits per second of each entry, 0 while the link is down; shape (n,). The first holds before the
            curve begins as well, the last for ever.

    Raises:
        BadInput: Times do not increase, or a rate is negative or not a number.
    """

    def __init__(self, time_s: np.ndarray, rate_bps: np.ndarray) -> None:
        self.time_s = np.asarray(time_s, dtype=np.float64)
        self.rate_bps = np.asarray(rate_bps, dtype=np.float64)
        times, rates = self.time_s, self.rate_bps
        if times.ndim != 1 or times.shape != rates.shape or not len(times) or (np.diff(times) <= 0).any():
            raise BadInput(
                f"link: {times.shape} times and {rates.shape} rates: must be as many, and times must increase."
            )
        if not (rates >= 0).all() or not np.isfinite(rates).all():
            raise BadInput("link: rates must be finite and not negative.")
        self._carried = np.concatenate(([0.0], np.cumsum(np.diff(times) * rates[:-1])))

    def rate(self, at_s: np.ndarray | float) -> np.ndarray:
        """Bits per second at each time."""
        return np.asarray(self.rate_bps[self._entry(at_s)])

    def carried(self, at_s: np.ndarray | float) -> np.ndarray:
        """Bits that the busy link carries from the first entry's start to each time; negative before it."""
        at, entry = np.asarray(at_s, dtype=np.float64), self._entry(at_s)
        return np.asarray(self._carried[entry] + (at - self.time_s[entry]) * self.rate_bps[entry])

    def reaches(self, bits: np.ndarray | float) -> np.ndarray:
        """The first time at which so many bits are carried; infinite where that never happens."""
        target = np.asarray(bits, dtype=np.float64)
        # The first entry that begins with `target` carried comes after the one in which the last bit leaves; "left"
        # makes a transfer that ends as an outage begins end there, and not when the link is back.
        entry = np.clip(np.searchsorted(self._carried, target, side="left") - 1, 0, len(self.time_s) - 1)
        rate = self.rate_bps[entry]
        with np.errstate(divide="ignore", invalid="ignore"):
            end = self.time_s[entry] + (target - self._carried[entry]) / rate
        return np.where(rate > 0, end, np.where(target > self._carried[entry], np.inf, self.time_s[entry]))

    def _entry(self, at_s: np.ndarray | float) -> np.ndarray:
        return np.asarray(np.clip(np.searchsorted(self.time_s, at_s, side="right") - 1, 0, len(self.time_s) - 1))


def transfer_end(
    trace_time: np.ndarray, rate_bps: np.ndarray, start_s: np.ndarray | float, n_bytes: np.ndarray | float
) -> np.ndarray:
    """When each transfer has left an otherwise idle link, delay not included.

    Transfers do not know of each other: for a queue, start each at the end of the one before.

    Args:
        trace_time: As in `RateCurve`.
        rate_bps: As in `RateCurve`.
        start_s: When each transfer begins; any shape that broadcasts with `n_bytes`.
        n_bytes: Bytes of each; 0 bytes end when they start, also on a dead link.

    Returns:
        Seconds, shape of `start_s` and `n_bytes` broadcast; infinite where the link never carries all.

    Raises:
        BadInput: Times do not increase, or a rate or size is negative or not a number.
    """
    curve = RateCurve(trace_time, rate_bps)
    start, sizes = np.broadcast_arrays(np.asarray(start_s, dtype=np.float64), np.asarray(n_bytes, dtype=np.float64))
    if not (sizes >= 0).all():
        raise BadInput("link: sizes must not be negative.")
    end = curve.reaches(curve.carried(start) + 8 * sizes)
    return np.where(sizes == 0, start, np.maximum(end, start))
