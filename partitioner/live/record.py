"""The record of a run: one JSON object a line, written while it goes on, so that a run that is killed keeps its past.

Lines have a field `kind`: "start" (first; what was run), "request", "tick" (conditions and the plan), "switch" and
"cloud" (reachable or not). Moments are seconds since the start of the session.
"""

from __future__ import annotations

import dataclasses
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from edge_deploy.core.benchmark import Provenance
from edge_deploy.core.conditions import Conditions
from edge_deploy.core.errors import BadInput
from edge_deploy.core.profile import Slowdown
from edge_deploy.core.serde import from_json, to_json
from partitioner.live.happened import HOW, Happened
from partitioner.live.switches import Switched

__all__ = ["Believed", "CloudChanged", "Recorder", "Run", "RunStart", "Tick", "read_run"]

VERSION = 1
_NUMBER_OF = {text: number for number, text in HOW.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Believed:
    """The cut table of a run as plain values; see `partitioner.cut_table.CutTable`."""

    cuts: tuple[str, ...]
    edge_s: tuple[float, ...]
    cloud_s: tuple[float, ...]
    encode_s: tuple[float, ...]
    decode_s: tuple[float, ...]
    up_bytes: tuple[int, ...]
    down_bytes: tuple[int, ...]
    edge_bytes: tuple[int, ...]
    crosses: tuple[bool, ...]
    provenance: Provenance
    edge_cpu: Slowdown = field(default_factory=Slowdown)
    edge_memory: Slowdown = field(default_factory=Slowdown)
    exit_share: tuple[float, ...] = ()  # empty in records of former versions: none


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStart:
    """What was run.

    Attributes:
        cuts: Ids; requests and ticks name them by number.
        up_bytes: Of each cut's boundary, uncoded.
        began: Date and time, for people.
        table: What the policy believed of the cuts; None where none decided.
    """

    artifact: str
    sha256: str
    cloud: str
    cuts: tuple[str, ...]
    up_bytes: tuple[int, ...]
    first: str
    codec: str
    policy: str
    switch: str
    fallback_after_s: float
    began: str = ""
    tick_s: float = 1.0
    table: Believed | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """One decision.

    Attributes:
        cut: Index of the one in force from then on.
        pressure: Share of the time in which something waited for the CPU, as the system says; None where it does not.
    """

    at_s: float
    conditions: Conditions
    cut: int
    why: str = ""
    pressure: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudChanged:
    """The cloud came or went."""

    at_s: float
    reachable: bool
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A record that was read.

    Attributes:
        requests: In the order of their answers.
        torn: The last line was cut off: the run was killed while it was written.
    """

    start: RunStart
    requests: tuple[Happened, ...]
    ticks: tuple[Tick, ...] = ()
    switches: tuple[tuple[float, Switched], ...] = ()
    cloud: tuple[CloudChanged, ...] = ()
    torn: bool = False
    end_s: float = field(default=0.0)


class Recorder:
    """Writes the lines.

    Args:
        path: Is replaced if it exists.

    Raises:
        BadInput: It cannot be written.
    """

    def __init__(self, path: Path | str, start: RunStart) -> None:
        self._path = Path(path)
        self._lock = threading.Lock()  # switches are written by whoever asks for them
        try:
            self._file: IO[str] | None = self._path.open("w", encoding="utf-8")
        except OSError as error:
            raise BadInput(f"{self._path}: the record cannot be written ({error.strerror}).") from error
        self._line("start", {"version": VERSION, **to_json(start)})
        self.flush()

    def request(self, one: Happened, start_s: float) -> None:
        """One request; moments are told from `start_s` on."""
        self._line(
            "request",
            {
                **one._asdict(),
                "how": HOW[one.how],
                **{name: round(getattr(one, name) - start_s, 7) for name in _MOMENTS if getattr(one, name)},
            },
        )

    def tick(self, tick: Tick) -> None:
        """One decision."""
        self._line("tick", to_json(tick))

    def switch(self, at_s: float, switched: Switched) -> None:
        """One switch, when it was done."""
        self._line("switch", {"at_s": at_s, **to_json(switched)})

    def cloud(self, changed: CloudChanged) -> None:
        """The cloud came or went."""
        self._line("cloud", to_json(changed))

    def flush(self) -> None:
        """Hand what was written to the system."""
        with self._lock:
            if self._file is not None:
                self._file.flush()

    def close(self) -> None:
        """Write the rest; safe to call twice."""
        with self._lock:
            if self._file is not None:
                self._file.flush()
                os.fsync(self._file.fileno())
                self._file.close()
                self._file = None

    def _line(self, kind: str, values: Mapping[str, Any]) -> None:
        line = json.dumps({"kind": kind, **values}, separators=(",", ":")) + "\n"
        with self._lock:
            if self._file is not None:
                self._file.write(line)


_MOMENTS = ("arrived_s", "begun_s", "headed_s", "done_s", "encoded_s", "answered_s")


def read_run(path: Path | str) -> Run:
    """The record of a run; one that was killed is read up to its last whole line.

    Raises:
        BadInput: It is no record, or a line in it is damaged.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}).") from error
    torn = bool(lines[-1])
    start: RunStart | None = None
    requests: list[Happened] = []
    ticks: list[Tick] = []
    switches: list[tuple[float, Switched]] = []
    cloud: list[CloudChanged] = []
    for number, line in enumerate(lines[:-1], start=1):
        where = f"{path}: line {number}"
        try:
            values = json.loads(line)
            kind = values.pop("kind")
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            raise BadInput(f"{where}: is no line of a record (`edge-deploy run --record` writes one).") from error
        if kind == "start":
            version = values.pop("version", None)
            if version != VERSION:
                raise BadInput(f"{where}: a record of version {version}; this program reads {VERSION}.")
            start = from_json(RunStart, values, where=where)
        elif kind == "request":
            requests.append(_request(values, where))
        elif kind == "tick":
            ticks.append(from_json(Tick, values, where=where))
        elif kind == "switch":
            at_s = values.pop("at_s", 0.0)
            switches.append((at_s, from_json(Switched, values, where=where)))
        elif kind == "cloud":
            cloud.append(from_json(CloudChanged, values, where=where))
        else:
            raise BadInput(f"{where}: unknown kind {kind!r}.")
    if start is None:
        raise BadInput(f"{path}: has no line of kind start; give a record that `edge-deploy run --record` wrote.")
    cuts = len(start.cuts)
    named = [*(one.cut for one in requests), *(tick.cut for tick in ticks)]
    if any(not 0 <= cut < cuts for cut in named):
        raise BadInput(f"{path}: a line names a cut that is not among the {cuts} of its start.")
    moments = [0.0, *(one.done_s for one in requests), *(tick.at_s for tick in ticks)]
    return Run(
        start=start,
        requests=tuple(requests),
        ticks=tuple(ticks),
        switches=tuple(switches),
        cloud=tuple(cloud),
        torn=torn,
        end_s=max(moments),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    cut: int
    how: str
    arrived_s: float
    begun_s: float
    headed_s: float
    done_s: float
    encoded_s: float
    answered_s: float
    queue_s: float
    cloud_s: float
    up_bytes: int
    down_bytes: int
    attempts: int
    reason: str
    number: int = 0  # records of former versions have none


def _request(values: Mapping[str, Any], where: str) -> Happened:
    found = from_json(_Request, values, where=where)
    if found.how not in _NUMBER_OF:
        raise BadInput(f"{where}: how = {found.how!r}: must be {', '.join(_NUMBER_OF)}.")
    named = {item.name: getattr(found, item.name) for item in dataclasses.fields(found)}
    return Happened(**{**named, "how": _NUMBER_OF[found.how]})
