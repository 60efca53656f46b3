"""What a file tells before anything is filled in: some of the condition fields over time, and how to read it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from edge_deploy.core.conditions import CONDITION_FIELDS
from edge_deploy.core.errors import BadInput

__all__ = ["Options", "Recorded", "RowProblems", "field_named"]

# What a message shows before it says how many more there are.
SHOWN_PROBLEMS = 12
_SHORT = {"uplink": "uplink_bps", "downlink": "downlink_bps", "rtt": "rtt_s", "cloud_queue": "cloud_queue_s"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to read a file where it does not say so itself.

    Attributes:
        name: The file's name, for messages and as the trace's source.
        columns: By field of `CONDITION_FIELDS` or "time": the column's name, with its unit after a colon where the
            name does not tell it, e.g. "UL_bitrate:kbit/s"; an empty name leaves the field out.
        interval_s: Seconds between rows, for files without a column of time; None where there is one.
        step_s: Width of the bins in which packets of a Mahimahi file are counted.
        repair: Mend bad rows, and list what was mended, instead of refusing the file.
        direction: "up", "down" or "" for both: what a file with one rate tells.
    """

    name: str
    columns: Mapping[str, str] = field(default_factory=dict)
    interval_s: float | None = None
    step_s: float = 1.0
    repair: bool = False
    direction: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """The part of a `Trace` that a file tells.

    Attributes:
        values: One array of shape (n,) for each field that the file tells.
        repairs: One line for each mended row; empty unless asked for.
        derived: By field: how it follows from another one, e.g. "as uplink: the file has one rate".
        unread: Names of columns that told nothing known.
    """

    time_s: np.ndarray
    end_s: float
    values: dict[str, np.ndarray]
    source: str
    repairs: tuple[str, ...] = ()
    derived: dict[str, str] = field(default_factory=dict)
    unread: tuple[str, ...] = ()


class RowProblems:
    """Collects what is wrong with rows: refuses the file in the end, or keeps a list of repairs."""

    def __init__(self, name: str, *, repair: bool) -> None:
        self.repairs: list[str] = []
        self._name = name
        self._repair = repair
        self._problems: list[str] = []

    def note(self, row: int, found: str, mended: str) -> None:
        """Row `row` (from 1, as an editor counts) has a problem; `mended` says what repairing makes of it."""
        if self._repair:
            self.repairs.append(f"line {row}: {found}: {mended}")
        else:
            self._problems.append(f"{self._name}: line {row}: {found}.")

    def finish(self) -> tuple[str, ...]:
        """The repairs.

        Raises:
            BadInput: There were problems and repairing was not asked for.
        """
        if self._problems:
            more = len(self._problems) - SHOWN_PROBLEMS
            tail = [f"{self._name}: and {more} more."] if more > 0 else []
            hint = f"{self._name}: mend the rows, or have them repaired (repair=True; each repair is listed)."
            raise BadInput(*self._problems[:SHOWN_PROBLEMS], *tail, hint)
        return tuple(self.repairs)


def field_named(name: str, *, where: str, also: tuple[str, ...] = ()) -> str:
    """The condition field that a user means: uplink, rtt, ... or its full name.

    Raises:
        BadInput: No such field.
    """
    full = _SHORT.get(name, name)
    if full not in (*CONDITION_FIELDS, *also):
        known = (*_SHORT, *CONDITION_FIELDS, *also)
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}."
        raise BadInput(f"{where}: {name}: unknown field; {hint}")
    return full
