"""Change over to a half that is loaded already, and leave the old one loaded as long as memory lasts."""

from __future__ import annotations

from edge_deploy.core.clock import Clock
from partitioner.live.stage import Stage
from partitioner.live.switches import Switched
from partitioner.live.switching import pause_and_reload

__all__ = ["go"]


def go(stage: Stage, index: int, clock: Clock) -> Switched:
    """See `partitioner.live.switches.Switch`; a half that is not warm is loaded beside the others first."""
    begun = clock.now_s()
    was_warm = stage.loaded(index) is not None
    if not stage.make_room(index, keep_running=True):
        return pause_and_reload.go(stage, index, clock)
    new = stage.load(index)
    with stage.edge:
        stopped = clock.now_s()
        old, stage.running = stage.running, new
        done = clock.now_s()
    return Switched(
        before=old.half.cut,
        after=new.half.cut,
        way="warm-standby" if was_warm else "load-beside",
        took_s=done - begun,
        stopped_s=done - stopped,
    )
