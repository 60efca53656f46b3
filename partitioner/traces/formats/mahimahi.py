"""Mahimahi packet-delivery traces: one integer a line, the millisecond in which one 1500-byte packet may pass."""

from __future__ import annotations

import re

import numpy as np

from edge_deploy.core.errors import BadInput
from partitioner.traces.recorded import Options, Recorded, RowProblems

__all__ = ["PACKET_BITS", "matches", "read"]

PACKET_BITS = 1500 * 8
PROBED_LINES = 50
_WHOLE = re.compile(r"-?\d+\Z")


def matches(text: str) -> bool:
    """Whether the first lines are whole numbers alone (some bad ones may be among them)."""
    lines = [line.strip() for line in text[:4096].splitlines()[:PROBED_LINES] if line.strip()]
    whole = sum(bool(_WHOLE.match(line)) for line in lines)
    return bool(lines) and bool(_WHOLE.match(lines[0]) or whole > 1) and whole >= 0.6 * len(lines)


def read(text: str, options: Options) -> Recorded:
    """Bits per second in bins of `options.step_s`: what Mahimahi's link shell lets through in that time.

    Mahimahi repeats the file after its last timestamp, so that is where the trace ends. A bin at the end that is less
    than half as wide as the others is joined to the one before.

    Raises:
        BadInput: A line is not a whole number of milliseconds, is negative or goes back in time, or the file is too
            short for one bin.
    """
    times, repairs = _times(text, options)
    if len(times) == 0 or times[-1] == 0:
        raise BadInput(f"{options.name}: a Mahimahi trace must last longer than 0 ms.")
    end_s = float(times[-1]) / 1000
    bins = max(1, int(end_s / options.step_s + 0.5))
    edges = np.append(np.arange(bins) * options.step_s, end_s)
    # A packet of the last millisecond passes just before the file repeats.
    packets, _ = np.histogram(times / 1000, bins=edges)
    rate = packets * PACKET_BITS / np.diff(edges)
    if options.direction == "down":
        values, derived = {"downlink_bps": rate, "uplink_bps": rate}, {"uplink_bps": "as downlink (one file)"}
    else:
        values, derived = {"uplink_bps": rate, "downlink_bps": rate}, {"downlink_bps": "as uplink (one file)"}
    return Recorded(
        time_s=edges[:-1], end_s=end_s, values=values, source=options.name, repairs=repairs, derived=derived
    )


def _times(text: str, options: Options) -> tuple[np.ndarray, tuple[str, ...]]:
    lines = text.splitlines()
    try:
        times = np.array([int(line) for line in lines if line.strip()], dtype=np.int64)
        if len(times) and times[0] >= 0 and (np.diff(times) >= 0).all():
            return times, ()
    except (ValueError, OverflowError):
        pass
    rows = RowProblems(options.name, repair=options.repair)
    kept: list[int] = []
    for number, raw in enumerate(lines, start=1):
        line = raw.strip()
        if not line:
            continue
        found = ""
        if not _WHOLE.match(line) or len(line) > 15:
            found = f"{line[:40]!r} is not a whole number of milliseconds"
        elif int(line) < 0:
            found = f"{line} is negative"
        elif kept and int(line) < kept[-1]:
            found = f"{line} goes back in time (before: {kept[-1]})"
        if found:
            rows.note(number, found, "left out")
        else:
            kept.append(int(line))
    return np.array(kept, dtype=np.int64), rows.finish()
