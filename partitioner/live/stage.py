"""The edge device's side of a session: which half runs, which ones are loaded, and the lock that makes it one server.

All inference of the edge goes through one lock, as in the simulator: the edge is one server. A switch replaces
`running` in one step; requests that have begun keep the half that they began with.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from edge_deploy.core.errors import BadInput
from partitioner.live.halves import EdgeHalf
from runtimes.contracts import Session

__all__ = ["Loaded", "Open", "Stage"]

Open = Callable[[EdgeHalf], Session]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A half that can run now.

    Attributes:
        index: Of the cut in the session's order.
        session: None where the edge computes nothing.
        run: What the edge computes of the model's inputs.
        crosses: Whether the cloud computes anything.
    """

    index: int
    half: EdgeHalf
    session: Session | None
    run: Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]
    crosses: bool


def _ready(index: int, half: EdgeHalf, session: Session | None) -> Loaded:
    if session is None:
        return Loaded(index=index, half=half, session=None, run=_nothing, crosses=half.crosses)
    run = session.run
    if half.crosses:
        taken = tuple(info.name for info in session.signature.inputs)

        def run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            # Inputs that only the tail reads are none of the head's.
            return session.run({name: inputs[name] for name in taken})

    return Loaded(index=index, half=half, session=session, run=run, crosses=half.crosses)


def _nothing(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {}


def _refuse(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    raise BadInput("the live session is closed; open a new one.")


class Stage:
    """Loaded halves; switches work on it one at a time, requests look at `running` under `edge`.

    Args:
        halves: By index of the cut.
        open_half: Loads one.
        budget_bytes: What loaded halves may take together; infinite for no limit.
        kept: Ids of cuts whose halves are never unloaded: the whole model, when it answers for a cloud that is gone.
    """

    def __init__(
        self,
        halves: tuple[EdgeHalf, ...],
        open_half: Open,
        *,
        budget_bytes: float,
        kept: tuple[str, ...] = (),
    ) -> None:
        self.halves = halves
        self.edge = threading.Lock()
        self.budget_bytes = budget_bytes
        self.kept = kept
        self.running: Loaded
        self._open = open_half
        self._loaded: dict[int, Loaded] = {}
        self._index = {half.cut: index for index, half in enumerate(halves)}

    def index(self, cut: str) -> int:
        """Where the cut of this id stands.

        Raises:
            BadInput: There is no such half.
        """
        if cut not in self._index:
            raise BadInput(f"cut {cut}: there is no half for it; there are {', '.join(self._index)}.")
        return self._index[cut]

    def loaded(self, index: int) -> Loaded | None:
        """The half if it is loaded."""
        return self._loaded.get(index)

    def loaded_indices(self) -> tuple[int, ...]:
        """Of all halves that are loaded."""
        return tuple(self._loaded)

    def load(self, index: int) -> Loaded:
        """The half, loaded now if it is not; whether it fits is for the caller to see to."""
        found = self._loaded.get(index)
        if found is None:
            half = self.halves[index]
            found = _ready(index, half, None if half.head is None else self._open(half))
            self._loaded[index] = found
        return found

    def unload(self, index: int) -> None:
        """Forget a half; its memory is free when the last request that runs it is done."""
        self._loaded.pop(index, None)

    def close(self) -> None:
        """Unload everything; requests that come now are refused."""
        with self.edge:
            half = self.running.half
            self.running = Loaded(index=self.running.index, half=half, session=None, run=_refuse, crosses=False)
            for loaded in self._loaded.values():
                if loaded.session is not None:
                    loaded.session.close()
            self._loaded.clear()

    def warm(self) -> tuple[str, ...]:
        """Ids of the cuts whose halves are loaded."""
        return tuple(self.halves[index].cut for index in sorted(self._loaded))

    @property
    def loaded_bytes(self) -> int:
        """Of all halves that are loaded."""
        return sum(self.halves[index].bytes for index in self._loaded)

    def make_room(self, index: int, *, keep_running: bool) -> bool:
        """Unload what may be unloaded until the half fits.

        Args:
            keep_running: The half in use stays.

        Returns:
            Whether it fits now.
        """
        if index in self._loaded:
            return True
        needed = self.halves[index].bytes
        # Oldest first: dicts keep the order in which halves were loaded.
        for other in list(self._loaded):
            if self.loaded_bytes + needed <= self.budget_bytes:
                break
            if self.halves[other].cut in self.kept or (keep_running and other == self.running.index):
                continue
            self.unload(other)
        return self.loaded_bytes + needed <= self.budget_bytes
