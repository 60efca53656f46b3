"""Human units at the edge of the program, SI inside: "512 KiB" to bytes, seconds to "5.4 µs"."""

from __future__ import annotations

import math
import re

from edge_deploy.core.errors import BadInput

__all__ = ["format_bytes", "format_seconds", "parse_bits_per_second", "parse_bytes", "parse_hertz", "parse_seconds"]

_BYTES = {"": 1, "b": 1} | {
    unit: factor
    for power, letter in enumerate("kmgt", start=1)
    for unit, factor in ((f"{letter}b", 1000**power), (f"{letter}ib", 1024**power))
}
_BITS_PER_SECOND = {
    prefix + unit: factor
    for prefix, factor in (("", 1.0), ("k", 1e3), ("m", 1e6), ("g", 1e9))
    for unit in ("bps", "bit/s", "bit")
}
_HERTZ = {"hz": 1.0, "khz": 1e3, "mhz": 1e6, "ghz": 1e9}
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9, "min": 60.0, "h": 3600.0}
_NUMBER = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\s*([^\s0-9]*)\s*\Z")


def parse_bytes(text: str | int, *, where: str) -> int:
    """Bytes: a number, or text such as "512 KiB" (1024), "2 GB" (1000) or "4096".

    Raises:
        BadInput: Not an amount of bytes; names `where`.
    """
    if isinstance(text, int):
        return text
    return round(_parse(text, _BYTES, where, 'bytes, e.g. "512 KiB" or "2 GB"'))


def parse_bits_per_second(text: str, *, where: str) -> float:
    """Bits per second of text such as "20 Mbps", "20Mbit" or "1.5 Gbit/s".

    Raises:
        BadInput: Not a rate; names `where`.
    """
    return _parse(text, _BITS_PER_SECOND, where, 'a rate with its unit, e.g. "20 Mbps"')


def parse_seconds(text: str, *, where: str) -> float:
    """Seconds of text such as "250 us", "1.5 ms" or "2 s".

    Raises:
        BadInput: Not a duration; names `where`.
    """
    return _parse(text, _SECONDS, where, 'a duration with its unit, e.g. "40 ms"')


def parse_hertz(text: str, *, where: str) -> float:
    """Hertz of text such as "180 MHz" or "2.4 GHz".

    Raises:
        BadInput: Not a frequency; names `where`.
    """
    return _parse(text, _HERTZ, where, 'a frequency with its unit, e.g. "180 MHz"')


def _parse(text: str, units: dict[str, int] | dict[str, float], where: str, right: str) -> float:
    found = _NUMBER.match(text)
    unit = found.group(2).lower() if found else ""
    if found is None or unit not in units:
        raise BadInput(f"{where} = {text!r}: must be {right}.")
    return float(found.group(1)) * units[unit]


def format_bytes(count: float) -> str:
    """Bytes with three significant digits in powers of 1000: "8.91 MB"."""
    return _format(float(count), (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1.0)))


def format_seconds(seconds: float) -> str:
    """A duration with three significant digits: "5.40 µs"."""
    return _format(seconds, (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9)))


def _format(value: float, units: tuple[tuple[str, float], ...]) -> str:
    if not math.isfinite(value):
        return str(value)
    # 0.9995 of the unit already rounds to it: 999.9 kB reads better as 1.00 MB.
    name, factor = next(((n, f) for n, f in units if abs(value) >= f * 0.9995), units[-1])
    scaled = value / factor
    if name == "B" or scaled == 0:
        return f"{scaled:.0f} {name}"
    digits = max(0, 2 - math.floor(math.log10(max(abs(scaled), 1.0)) + 1e-9))
    return f"{scaled:.{digits}f} {name}"
