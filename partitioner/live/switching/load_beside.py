"""Load the new half while the old one goes on answering, then change over and unload the old one."""

from __future__ import annotations

from edge_deploy.core.clock import Clock
from partitioner.live.stage import Stage
from partitioner.live.switches import Switched
from partitioner.live.switching import pause_and_reload

__all__ = ["go"]


def go(stage: Stage, index: int, clock: Clock) -> Switched:
    """See `partitioner.live.switches.Switch`; where both halves do not fit side by side, pause and reload."""
    begun = clock.now_s()
    if not stage.make_room(index, keep_running=True):
        return pause_and_reload.go(stage, index, clock)
    new = stage.load(index)
    with stage.edge:
        stopped = clock.now_s()
        old, stage.running = stage.running, new
        done = clock.now_s()
    if old.index != index and old.half.cut not in stage.kept:
        stage.unload(old.index)
    return Switched(
        before=old.half.cut, after=new.half.cut, way="load-beside", took_s=done - begun, stopped_s=done - stopped
    )
