"""When requests come: at equal distances, at random, or as in a file."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from edge_deploy.core.errors import BadInput

__all__ = ["periodic", "poisson", "read_arrivals"]


def periodic(rate_hz: float, duration_s: float) -> np.ndarray:
    """One request every 1 / rate seconds, the first half a distance after 0; shape (n,)."""
    _check(rate_hz, duration_s)
    return (np.arange(max(1, math.floor(duration_s * rate_hz))) + 0.5) / rate_hz


def poisson(rate_hz: float, duration_s: float, seed: int) -> np.ndarray:
    """A Poisson process: gaps are exponential with mean 1 / rate; shape (n,)."""
    _check(rate_hz, duration_s)
    random = np.random.default_rng([seed, 2])
    times = np.empty(0)
    end = 0.0
    while end < duration_s:
        left = max(duration_s - end, 1 / rate_hz)
        count = math.ceil(left * rate_hz + 4 * math.sqrt(left * rate_hz) + 1)
        times = np.concatenate((times, end + np.cumsum(random.exponential(1 / rate_hz, count))))
        end = float(times[-1])
    return times[times < duration_s]


def read_arrivals(path: Path | str) -> np.ndarray:
    """Seconds from a text file, one number a line; empty lines and lines that begin with # are left out.

    Raises:
        BadInput: A line is no time, or goes back; names the line.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); arrivals: poisson, periodic, or a file.") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not a text file; arrivals are one number of seconds a line.") from error
    times: list[float] = []
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        try:
            time = float(text)
        except ValueError:
            raise BadInput(f"{path}, line {number}: {text!r}: must be seconds, one number a line.") from None
        if not (math.isfinite(time) and time >= 0):
            raise BadInput(f"{path}, line {number}: {text}: must be finite and not negative.")
        if times and time < times[-1]:
            raise BadInput(
                f"{path}, line {number}: {text} comes before {times[-1]:g} of the line before; sort the file."
            )
        times.append(time)
    if not times:
        raise BadInput(f"{path}: holds no arrivals; give one number of seconds a line.")
    return np.array(times)


def _check(rate_hz: float, duration_s: float) -> None:
    if not (rate_hz > 0 and math.isfinite(rate_hz)):
        raise BadInput(f"arrivals: rate {rate_hz}: must be above 0 requests a second.")
    if not (duration_s > 0 and math.isfinite(duration_s)):
        raise BadInput(f"arrivals: duration {duration_s}: must be above 0 s.")
