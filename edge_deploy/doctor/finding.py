"""One thing that the doctor found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["Finding", "Level"]

Level: TypeAlias = Literal["ok", "note", "problem"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was found, and what to do about it.

    Attributes:
        level: "note" for what limits something that not everybody wants; "problem" for what will go wrong.
        remedy: A command or an advice; empty where nothing needs doing.
    """

    level: Level
    text: str
    remedy: str = ""
