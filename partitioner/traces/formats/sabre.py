"""Sabre's JSON: a list of {duration_ms, bandwidth_kbps, latency_ms}, as the public 3G, 4G and FCC traces come."""

from __future__ import annotations

import json
import math

import numpy as np

from edge_deploy.core.errors import BadInput
from partitioner.traces.recorded import Options, Recorded

__all__ = ["matches", "read"]

KEYS = ("duration_ms", "bandwidth_kbps", "latency_ms")
SHOWN_PROBLEMS = 12


def matches(text: str) -> bool:
    """Whether this is JSON."""
    return text.lstrip()[:1] in ("[", "{")


def read(text: str, options: Options) -> Recorded:
    """One rate for both directions (the logs hold downloads), and the latency as round-trip time.

    Raises:
        BadInput: Not JSON, or an entry lacks a key, is negative, not a number, or lasts for no time. Repairing leaves
            such entries out.
    """
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{options.name}: not JSON ({error}).") from error
    if not isinstance(entries, list) or not entries:
        raise BadInput(f"{options.name}: must be a JSON array of entries with {', '.join(KEYS)}.")
    good, problems = [], []
    for number, entry in enumerate(entries, start=1):
        problem = _problem(entry)
        if problem:
            problems.append(f"entry {number}: {problem}")
        else:
            good.append([float(entry[key]) for key in KEYS])
    if problems and not options.repair:
        more = len(problems) - SHOWN_PROBLEMS
        shown = [f"{options.name}: {problem}." for problem in problems[:SHOWN_PROBLEMS]]
        raise BadInput(*shown, *([f"{options.name}: and {more} more."] if more > 0 else []))
    if not good:
        raise BadInput(f"{options.name}: no entry is good.")
    duration_s, rate, latency = (np.array(column) for column in zip(*good, strict=True))
    ends = np.cumsum(duration_s / 1000)
    rate = rate * 1000
    told, other = ("uplink_bps", "downlink_bps") if options.direction == "up" else ("downlink_bps", "uplink_bps")
    return Recorded(
        time_s=np.concatenate([[0.0], ends[:-1]]),
        end_s=float(ends[-1]),
        values={told: rate, other: rate, "rtt_s": latency / 1000},
        source=options.name,
        repairs=tuple(f"{problem}: left out" for problem in problems),
        derived={other: f"as {told.removesuffix('_bps')} (the file has one rate)"},
    )


def _problem(entry: object) -> str:
    if not isinstance(entry, dict):
        return "not an object"
    for key in KEYS:
        value = entry.get(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return f"{key} is missing" if key not in entry else f"{key} = {str(value)[:40]!r} is not a number"
        if not math.isfinite(value) or value < 0:
            return f"{key} = {value} must be finite and not negative"
    return "duration_ms = 0 must be positive" if entry["duration_ms"] == 0 else ""
