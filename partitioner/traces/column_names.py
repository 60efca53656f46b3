"""What a column of somebody's log tells, read from its name: which condition, and in which unit."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edge_deploy.core.errors import BadInput
from partitioner.traces.recorded import field_named

__all__ = ["Column", "TIME", "assign", "asked_columns", "time_factor"]

TIME = "time"
_RATE = {
    "bps": 1.0, "bit/s": 1.0, "bits/s": 1.0, "kbps": 1e3, "kbit/s": 1e3, "kb/s": 1e3, "kbit": 1e3, "mbps": 1e6,
    "mbit/s": 1e6, "mb/s": 1e6, "mbit": 1e6, "gbps": 1e9, "gbit/s": 1e9, "gb/s": 1e9, "gbit": 1e9, "B/s": 8.0,
    "Bps": 8.0, "bytes/s": 8.0, "kB/s": 8e3, "kBps": 8e3, "MB/s": 8e6, "MBps": 8e6,
}  # fmt: skip
_TIME = {
    "s": 1.0, "sec": 1.0, "secs": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3, "msec": 1e-3, "milliseconds": 1e-3,
    "us": 1e-6, "µs": 1e-6, "ns": 1e-9, "min": 60.0, "minutes": 60.0,
}  # fmt: skip
_SHARE = {"%": 0.01, "percent": 0.01, "pct": 0.01, "perc": 0.01, "fraction": 1.0, "share": 1.0, "ratio": 1.0}
_UNITS_OF = {"rate": _RATE, "time": _TIME, "share": _SHARE}
_UP = {"up", "ul", "uplink", "upload", "upstream", "tx", "sent", "send", "egress"}
_DOWN = {"down", "dl", "downlink", "download", "downstream", "rx", "received", "receive", "recv", "ingress"}
_RATE_WORDS = {"bandwidth", "throughput", "bitrate", "rate", "datarate", "goodput", "capacity", "speed", "bw", "tput"}
_RTT_WORDS = {"rtt", "ping", "latency", "delay"}
_SPREADS = {"min", "max", "std", "stdev", "stddev", "mdev", "jitter", "var", "p95", "p99", "dev", "count"}
_TIME_WORDS = {"time", "timestamp", "t", "ts", "elapsed", "epoch", "datetime", "date", "unixtime", "clock"}
_CLOUD = {"cloud", "server", "remote"}
_SPEED_OF_THE_CAR = {"speed"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column that is read.

    Attributes:
        field: Of `CONDITION_FIELDS`, or "time", or "rate" for one that does not say its direction.
        factor: What a value is multiplied with to get SI units; None where the name does not tell the unit.
    """

    name: str
    field: str
    factor: float | None


def assign(names: list[str]) -> dict[str, Column]:
    """Columns by what they tell; where several tell the same, one that says a unit and then the first wins."""
    found: dict[str, Column] = {}
    for name in names:
        column = _understood(name)
        if column is None:
            continue
        before = found.get(column.field)
        if before is None or (before.factor is None and column.factor is not None):
            found[column.field] = column
    return found


def asked_columns(asked: dict[str, str], names: list[str], *, where: str) -> dict[str, Column]:
    """The columns that the user named, e.g. {"uplink": "UL_bitrate:kbit/s"}; those with an empty name are left out.

    Raises:
        BadInput: No such field, column or unit.
    """
    found: dict[str, Column] = {}
    problems: list[str] = []
    for key, text in asked.items():
        try:
            field = field_named(key, where=where, also=(TIME, "rate"))
        except BadInput as error:
            problems += error.problems
            continue
        if not text.strip():
            continue
        # A name may itself hold a colon; the whole text is tried first.
        name, unit = (text, "") if text in names else text.rpartition(":")[::2]
        if name not in names:
            problems.append(f"{where}: no column {name or text!r} for {key}; it has {', '.join(names)}.")
            continue
        factor = _factor_of(unit, field) if unit else None
        if unit and factor is None:
            known = ", ".join(_UNITS_OF[_quantity(field)])
            problems.append(f"{where}: column {name}: unit {unit!r} for {key}; must be one of {known}.")
        elif not unit:
            factor = _unit_in(name, _quantity(field))
        found[field] = Column(name=name, field=field, factor=factor)
    if problems:
        raise BadInput(*problems)
    return found


def time_factor(name: str) -> float | None:
    """Seconds of one unit of a column of time, where its name tells."""
    return _unit_in(name, "time")


def _quantity(field: str) -> str:
    if field.endswith("_bps") or field == "rate":
        return "rate"
    return "time" if field.endswith("_s") or field == TIME else "share"


def _factor_of(unit: str, field: str) -> float | None:
    units = _UNITS_OF[_quantity(field)]
    return units.get(unit, units.get(unit.lower()))


def _words(name: str) -> list[str]:
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", name)
    return [word.lower() for word in re.split(r"[^A-Za-z0-9µ]+", spaced) if word]


def _unit_in(name: str, quantity: str) -> float | None:
    """The unit that stands in a name: "DL (Mbit/s)", "uplink_mbps", "rtt_ms", "cpu %"."""
    units = _UNITS_OF[quantity]
    for text in reversed(
        re.split(r"[\s_()\[\],;:.|-]+|(?<=[a-z])(?=[A-Z])", re.sub(r"(?i)bits? per s\w*", "bit/s", name))
    ):
        if text in units or text.lower() in units:
            return units.get(text, units.get(text.lower()))
    joined = re.search(r"(?i)(k|m|g)bits?_?(?:per_?s|ps|_s)", name)
    if quantity == "rate" and joined:
        return {"k": 1e3, "m": 1e6, "g": 1e9}[joined.group(1).lower()]
    if quantity == "rate" and re.search(r"(?i)(?<![kmg])(?:bits_?(?:per_?s|ps)|_bps)", name):
        return 1.0
    return 0.01 if quantity == "share" and "%" in name else None


def _understood(name: str) -> Column | None:
    words = _words(name)
    own = set(words)
    squeezed = "".join(words)
    # PINGMIN and pingmax too, where a capital does not part the words.
    spread = own & _SPREADS or any(
        word.endswith(end) for word in words for end in ("min", "max", "std", "stdev", "mdev", "jitter")
    )
    side = "cloud" if own & _CLOUD else "edge"
    rate = _unit_in(name, "rate")
    if own & {"loss", "lost", "drop", "dropped"} or squeezed.endswith("loss"):
        return Column(name=name, field="loss", factor=_unit_in(name, "share"))
    if own & {"queue", "queueing"} and side == "cloud":
        return Column(name=name, field="cloud_queue_s", factor=_unit_in(name, "time"))
    if own & _RTT_WORDS or any(squeezed.startswith(word) for word in ("rtt", "ping")):
        return None if spread else Column(name=name, field="rtt_s", factor=_unit_in(name, "time"))
    if rate is not None or own & (_RATE_WORDS - _SPEED_OF_THE_CAR) or (own & (_UP | _DOWN) and own & _RATE_WORDS):
        if spread:
            return None
        direction = "uplink_bps" if own & _UP else "downlink_bps" if own & _DOWN else "rate"
        return Column(name=name, field=direction, factor=rate)
    if own & {"uplink", "upload", "downlink", "download"} and len(own) == 1:
        direction = "uplink_bps" if own & _UP else "downlink_bps"
        return Column(name=name, field=direction, factor=None)
    if own & {"cpu", "load"} and not own & {"avg1", "avg5", "temperature", "temp", "freq", "frequency", "mhz", "ghz"}:
        return Column(name=name, field=f"{side}_load", factor=_unit_in(name, "share"))
    if own & {"mem", "memory", "ram"} and not own & {"mb", "gb", "kb", "bytes", "mib", "gib", "gps"}:
        return Column(name=name, field=f"{side}_memory", factor=_unit_in(name, "share"))
    if own & _TIME_WORDS or squeezed in _TIME_WORDS or (own and own <= {"seconds", "secs", "sec"}):
        return Column(name=name, field=TIME, factor=_unit_in(name, "time"))
    return None
