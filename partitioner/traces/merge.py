"""Put the link of one trace and the load of another together."""

from __future__ import annotations

import math

import numpy as np

from edge_deploy.core.conditions import CONDITION_FIELDS, Trace
from edge_deploy.core.errors import BadInput
from partitioner.traces.recorded import Recorded

__all__ = ["LOAD_FIELDS", "merge"]

LOAD_FIELDS = ("edge_load", "edge_memory", "cloud_load", "cloud_memory", "cloud_queue_s")


def merge(link: Trace, load: Trace | Recorded, *, fields: tuple[str, ...] = LOAD_FIELDS) -> Trace:
    """`link` with the `fields` of `load`, on the times of both, as long as `link` lasts.

    A load that is shorter starts again; `filled` says so. Fields that `load` filled in itself do not replace what
    `link` tells.

    Raises:
        BadInput: `load` tells none of the fields.
    """
    unknown = set(fields) - set(CONDITION_FIELDS)
    if unknown:
        raise BadInput(f"merge: unknown field {', '.join(sorted(unknown))}; known: {', '.join(CONDITION_FIELDS)}.")
    filled_there = load.filled if isinstance(load, Trace) else load.derived
    taken = [name for name in fields if name in load.values and name not in filled_there]
    if not taken:
        raise BadInput(f"merge: {load.source} tells none of {', '.join(fields)}.")
    starts = np.arange(math.ceil(link.end_s / load.end_s)) * load.end_s
    load_times = (starts[:, None] + load.time_s[None, :]).ravel()
    times = np.unique(np.concatenate([link.time_s, load_times]))
    times = times[times < link.end_s]
    from_link = np.searchsorted(link.time_s, times, side="right") - 1
    from_load = (np.searchsorted(load_times, times, side="right") - 1) % len(load.time_s)
    repeated = f"{load.source}, {len(starts)} times over" if len(starts) > 1 else ""
    kept = {name: how for name, how in link.filled.items() if name not in taken}
    return Trace(
        time_s=times,
        end_s=link.end_s,
        values={
            name: load.values[name][from_load] if name in taken else link.values[name][from_link]
            for name in CONDITION_FIELDS
        },
        source=f"{link.source} + {load.source}",
        filled={**kept, **(dict.fromkeys(taken, repeated) if repeated else {})},
        repairs=(*link.repairs, *load.repairs),
    )
