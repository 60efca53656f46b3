"""Stop, unload the old half, load the new one, go on: the least memory, and the longest stop."""

from __future__ import annotations

from edge_deploy.core.clock import Clock
from edge_deploy.core.errors import EdgeDeployError
from partitioner.live.stage import Stage
from partitioner.live.switches import Switched

__all__ = ["go"]


def go(stage: Stage, index: int, clock: Clock) -> Switched:
    """See `partitioner.live.switches.Switch`."""
    begun = clock.now_s()
    with stage.edge:
        stopped = clock.now_s()
        old = stage.running
        if old.half.cut not in stage.kept:
            stage.unload(old.index)
            if old.session is not None:
                old.session.close()  # now, and not when the last request has forgotten it: the new half needs the room
        stage.make_room(index, keep_running=False)
        try:
            stage.running = stage.load(index)
        except EdgeDeployError:
            stage.running = stage.load(old.index)
            raise
        done = clock.now_s()
    return Switched(
        before=old.half.cut,
        after=stage.halves[index].cut,
        way="pause-and-reload",
        took_s=done - begun,
        stopped_s=done - stopped,
    )
