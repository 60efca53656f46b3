"""What the edge, the link and the cloud are like at a moment, and how that goes on over time."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field

import numpy as np

from edge_deploy.core.errors import BadInput

__all__ = ["CONDITION_FIELDS", "Conditions", "Trace"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """One moment.

    Attributes:
        uplink_bps: Bits per second that the application gets from edge to cloud; 0 when the link is down.
        downlink_bps: The same from cloud to edge.
        rtt_s: Round-trip time of a small message, seconds.
        loss: Share of packets lost, 0 to 1; the rates are already those that remain.
        edge_load: Share of the edge's CPU that others use, 0 to 1.
        edge_memory: Share of the edge's free memory that others take, 0 to 1.
        cloud_load: Share of the cloud's CPU that others use, 0 to 1.
        cloud_memory: Share of the cloud's free memory that others take, 0 to 1.
        cloud_queue_s: Seconds that a request waits in the cloud before it is served.
    """

    uplink_bps: float
    downlink_bps: float
    rtt_s: float
    loss: float = 0.0
    edge_load: float = 0.0
    edge_memory: float = 0.0
    cloud_load: float = 0.0
    cloud_memory: float = 0.0
    cloud_queue_s: float = 0.0

    def __post_init__(self) -> None:
        problems = []
        for name in CONDITION_FIELDS:
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0:
                problems.append(f"conditions: {name} = {value}: must be finite and not negative.")
            elif name in _SHARES and value > 1:
                problems.append(f"conditions: {name} = {value}: a share, must be between 0 and 1.")
        if problems:
            raise BadInput(*problems)


CONDITION_FIELDS = tuple(item.name for item in dataclasses.fields(Conditions))
_SHARES = frozenset({"loss", "edge_load", "edge_memory", "cloud_load", "cloud_memory"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Conditions over time, constant between two entries.

    Attributes:
        time_s: Start of each entry, strictly increasing from 0; shape (n,).
        end_s: When the last entry ends.
        values: One array of shape (n,) for each of `CONDITION_FIELDS`.
        source: Where it came from: a file's name or a generator with its seed.
        filled: By field: how it was filled in where the source does not tell it, e.g. "constant 0.05 s".
        repairs: One line for each bad row that was mended; rows are mended only when asked.
    """

    time_s: np.ndarray
    end_s: float
    values: dict[str, np.ndarray]
    source: str
    filled: dict[str, str] = field(default_factory=dict)
    repairs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        problems = []
        count = len(self.time_s)
        if count == 0 or self.time_s[0] != 0 or (np.diff(self.time_s) <= 0).any() or self.end_s <= self.time_s[-1]:
            problems.append(f"trace {self.source}: times must start at 0, increase, and end before end_s.")
        for name in CONDITION_FIELDS:
            values = self.values.get(name)
            if values is None or values.shape != (count,):
                problems.append(f"trace {self.source}: {name} must have {count} values.")
            elif not np.isfinite(values).all() or (values < 0).any() or (name in _SHARES and (values > 1).any()):
                problems.append(f"trace {self.source}: {name} has values out of range.")
        unknown = set(self.values) - set(CONDITION_FIELDS)
        if unknown:
            problems.append(f"trace {self.source}: unknown field {', '.join(sorted(unknown))}.")
        if problems:
            raise BadInput(*problems)

    def index(self, now_s: float | np.ndarray) -> np.ndarray:
        """The entry that holds at each time; times before 0 and after the end get the first and the last."""
        return np.clip(np.searchsorted(self.time_s, now_s, side="right") - 1, 0, len(self.time_s) - 1)

    def at(self, now_s: float) -> Conditions:
        """The conditions at one time."""
        entry = int(self.index(now_s))
        return Conditions(**{name: float(self.values[name][entry]) for name in CONDITION_FIELDS})
