"""Read a trace file of any known format into a `Trace`, fill in what it does not tell, and say so."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edge_deploy.core import registry
from edge_deploy.core.conditions import Trace
from edge_deploy.core.errors import BadInput
from partitioner.traces.container import members, read_text
from partitioner.traces.fill import complete
from partitioner.traces.recorded import Options, Recorded

__all__ = ["FORMATS", "read_recorded", "read_trace", "trace_members"]

FORMATS = "partitioner.traces.formats"
_DIRECTION = re.compile(r"(?:^|[._-])(up|uplink|down|downlink)(?:[._-]|\Z)")
_OTHER = {"up": "down", "uplink": "downlink", "down": "up", "downlink": "uplink"}


def read_trace(
    path: Path | str,
    *,
    format: str | None = None,
    member: str | None = None,
    columns: Mapping[str, str] | None = None,
    interval_s: float | None = None,
    step_s: float = 1.0,
    repair: bool = False,
    fill: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Trace:
    """The trace in a file.

    Args:
        path: A file, also compressed (gzip, xz, bzip2), or a file in an archive: "logs.tar.gz::bus_1.json". Mahimahi
            files come in pairs: next to "x.up" the file "x.down" is read too, and the trace lasts as long as the
            shorter of them.
        format: A module of `partitioner.traces.formats`; default: found from the content.
        member: Which file of an archive, instead of "::".
        columns: By field (uplink, downlink, rtt, loss, edge_load, time, ...): column of a CSV, "NAME" or "NAME:UNIT";
            an empty name leaves the field out.
        interval_s: Seconds between rows of a CSV without a column of time.
        step_s: Width of the bins in which packets of a Mahimahi file are counted.
        repair: Mend bad rows and list that in `Trace.repairs`, instead of refusing the file.
        fill: How to fill in fields that the file does not tell: a constant ("rtt": "50 ms") or a generator's name
            ("edge_load": "diurnal-load"); see `partitioner.traces.fill`.
        seed: Of those generators.

    Raises:
        BadInput: The file, a row or an option is not what it must be; names file and line.
    """
    recorded = read_recorded(
        path, format=format, member=member, columns=columns, interval_s=interval_s, step_s=step_s, repair=repair
    )
    return complete(recorded, fill=fill or {}, seed=seed)


def read_recorded(
    path: Path | str,
    *,
    format: str | None = None,
    member: str | None = None,
    columns: Mapping[str, str] | None = None,
    interval_s: float | None = None,
    step_s: float = 1.0,
    repair: bool = False,
) -> Recorded:
    """What a file tells, and no more: the way to read a load, which `merge` puts on a link's trace.

    Raises:
        BadInput: As `read_trace`.
    """
    if "::" in str(path) and not Path(path).exists():
        text_path, _, inner = str(path).partition("::")
        path, member = Path(text_path), inner
    path = Path(path)
    if interval_s is not None and not 0 < interval_s < float("inf"):
        raise BadInput(f"interval {interval_s} s: must be positive.")
    if not 0 < step_s < float("inf"):
        raise BadInput(f"step {step_s} s: must be positive.")
    given = {"columns": dict(columns or {}), "interval_s": interval_s, "step_s": step_s, "repair": repair}
    recorded, used = _read_one(path, member, format, given)
    if used == "mahimahi":
        recorded = _with_other_direction(path, member, recorded, given)
    return recorded


def trace_members(path: Path | str) -> tuple[str, ...]:
    """Files in an archive of traces; empty for a plain file.

    Raises:
        BadInput: The file is missing or damaged.
    """
    return members(Path(path))


def _read_one(path: Path, member: str | None, format: str | None, given: Mapping[str, object]) -> tuple[Recorded, str]:
    text, name = read_text(path, member=member)
    direction = _direction(name)
    # Options holds what `given` names, with the same types; mypy cannot see that through the mapping.
    options = Options(name=name, direction=direction.removesuffix("link"), **given)  # type: ignore[arg-type]
    used = format or _detected(text, str(path))
    module = registry.load(FORMATS, used)
    return module.read(text, options), used


def _detected(text: str, where: str) -> str:
    for name in registry.names(FORMATS):
        if registry.load(FORMATS, name).matches(text):
            return name
    first = text.lstrip().splitlines()[0][:60]
    raise BadInput(
        f"{where}: begins with {first!r}, which is no known trace format ({', '.join(registry.names(FORMATS))}); a CSV "
        "needs a header line. Name the format if you know it."
    )


def _direction(name: str) -> str:
    found = _DIRECTION.findall(name.lower())
    return found[-1] if found else ""


def _with_other_direction(path: Path, member: str | None, one: Recorded, given: Mapping[str, object]) -> Recorded:
    """Join the file of the other direction that lies beside this one."""
    name = member or path.name
    found = list(_DIRECTION.finditer(name.lower()))
    if not found:
        return one
    start, end = found[-1].span(1)
    twin = name[:start] + _OTHER[found[-1].group(1)] + name[end:]
    if member is not None:
        if twin not in members(path):
            return one
        other, _ = _read_one(path, twin, "mahimahi", given)
    else:
        candidates = [path.with_name(twin)]
        plain = re.sub(r"\.(xz|gz|bz2)\Z", "", twin)
        candidates += [path.with_name(plain + suffix) for suffix in ("", ".xz", ".gz", ".bz2")]
        beside = next((candidate for candidate in candidates if candidate.is_file()), None)
        if beside is None:
            return one
        other, _ = _read_one(beside, None, "mahimahi", given)
    up, down = (one, other) if found[-1].group(1).startswith("up") else (other, one)
    count = min(len(up.time_s), len(down.time_s))
    end_s = min(up.end_s, down.end_s)
    note = "" if up.end_s == down.end_s else f", first {end_s:g} s of {max(up.end_s, down.end_s):g} s"
    return Recorded(
        time_s=up.time_s[:count],
        end_s=max(end_s, float(np.nextafter(up.time_s[count - 1], np.inf))),
        values={"uplink_bps": up.values["uplink_bps"][:count], "downlink_bps": down.values["downlink_bps"][:count]},
        source=f"{up.source} with {down.source}{note}",
        repairs=(
            *(f"{up.source}: {line}" for line in up.repairs),
            *(f"{down.source}: {line}" for line in down.repairs),
        ),
    )
