"""What every way of switching offers, and what a switch was like."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Protocol

from edge_deploy.core import registry
from edge_deploy.core.clock import Clock
from partitioner.live.stage import Stage

__all__ = ["SWITCHING", "Switch", "Switched", "switching"]

SWITCHING = "partitioner.live.switching"


@dataclass(frozen=True, slots=True, kw_only=True)
class Switched:
    """One switch.

    Attributes:
        way: How it was really done; the one asked for may not fit into the memory.
        took_s: From the decision to the new half in force.
        stopped_s: How long no request could begin on the edge: what a request waits at most.
    """

    before: str
    after: str
    way: str
    took_s: float
    stopped_s: float


class Switch(Protocol):
    """What a module in `partitioner/live/switching` offers."""

    def go(self, stage: Stage, index: int, clock: Clock) -> Switched:
        """Go over to another half; no request is lost, some may wait.

        Raises:
            EdgeDeployError: The half cannot be loaded; the old one is in force.
        """


def switching(way: str) -> Switch:
    """The way of this name: "pause-and-reload", "load-beside" or "warm-standby".

    Raises:
        BadInput: There is none.
    """
    module: ModuleType = registry.load(SWITCHING, way)
    return module
