"""One cell of a sweep of simulations as a task: one policy on one trace with one seed, between two devices.

Everything that decides the result is part of the task, traces and tables included, so that a cell has the same key and
the same result on every machine.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from edge_deploy.core.conditions import Trace
from edge_deploy.core.serde import from_json
from partitioner.controller import train
from partitioner.cut_table import CutTable
from partitioner.engine.task import Task, make_task
from partitioner.measured import Probes
from partitioner.policy import Policy, Training
from partitioner.setting import Setting
from partitioner.simulator import kernel
from partitioner.simulator.arrivals import periodic, poisson
from partitioner.simulator.compare import BOUNDS, Outcome, simulate_bound
from partitioner.simulator.simulate import simulate
from partitioner.simulator.world import World
from partitioner.study.modelled import table_from_json, table_to_json

__all__ = ["Arrivals", "cell_task", "outcome_of_rows", "simulate_cell"]

REVISION = 1
_FUNCTION = "partitioner.simulator.cell:simulate_cell"
_WORLD = ("workers", "batch_limit", "batch_wait_s", "batch_share")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """When requests come.

    Attributes:
        how: "poisson", "periodic", or "moments".
        moments: Of a file; shape (n,); None else.
    """

    how: str
    rate_hz: float = 0.0
    moments: np.ndarray | None = None

    def on(self, end_s: float, seed: int) -> np.ndarray:
        """The moments on a trace that ends at `end_s`; shape (n,)."""
        if self.moments is not None:
            return self.moments[self.moments < end_s]
        return poisson(self.rate_hz, end_s, seed) if self.how == "poisson" else periodic(self.rate_hz, end_s)


def cell_task(
    policy: str,
    table: CutTable,
    trained: Sequence[Trace],
    trace: Trace,
    arrivals: Arrivals,
    world: World,
    *,
    seed: int,
    arrival_seed: int,
) -> Task:
    """The task whose table has one row a request: arrival_s, latency_s, cut, how, and the number of switches.

    Args:
        policy: As for `partitioner.controller.train`, or one of `partitioner.simulator.compare.BOUNDS`.
        seed: Of early exits; `arrival_seed`: of the requests.
    """
    learns = policy not in (*BOUNDS, "all-edge", "all-cloud") and not policy.startswith("fixed:")
    return make_task(
        _FUNCTION,
        {
            "policy": policy,
            "table": table_to_json(table),
            "trained": [_packed_trace(each) for each in trained] if learns else [],
            "trace": _packed_trace(trace),
            "arrivals": {
                "how": arrivals.how,
                "rate_hz": arrivals.rate_hz,
                "moments": None if arrivals.moments is None else _packed(arrivals.moments),
                "seed": arrival_seed,
            },
            "setting": world.setting,
            "probes": world.probes,
            "world": {name: getattr(world, name) for name in _WORLD} | {"cloud_fails": world.cloud_fails},
            "seed": seed,
        },
        revision=REVISION,
    )


def simulate_cell(
    policy: str,
    table: dict[str, Any],
    trained: list[dict[str, Any]],
    trace: dict[str, Any],
    arrivals: dict[str, Any],
    setting: dict[str, Any],
    probes: dict[str, Any],
    world: dict[str, Any],
    seed: int,
) -> dict[str, np.ndarray]:
    """Carry out `cell_task`."""
    given = from_json(Setting, setting, where="setting")
    probing = from_json(Probes, probes, where="probes")
    around = World(
        setting=given,
        probes=probing,
        cloud_fails=tuple((float(begin), float(end)) for begin, end in world["cloud_fails"]),
        **{name: world[name] for name in _WORLD},
    )
    along = _unpacked_trace(trace)
    moments = arrivals["moments"]
    coming = Arrivals(
        how=arrivals["how"], rate_hz=arrivals["rate_hz"], moments=None if moments is None else _unpacked(moments)
    ).on(along.end_s, arrivals["seed"])
    learning = json.dumps([table, trained, setting, probes], sort_keys=True)
    if policy in BOUNDS:
        served = simulate_bound(policy, _learning(learning)[0], along, coming, around, seed=seed)
    else:
        served = simulate(_trained(policy, learning), along, coming, around, seed=seed)
    return {
        "arrival_s": served.arrival_s,
        "latency_s": served.latency_s,
        "cut": served.cut.astype(np.int32),
        "how": served.how,
        "switches": np.full(len(coming), served.switches, dtype=np.int32),
    }


def outcome_of_rows(name: str, rows: Mapping[str, np.ndarray], end_s: float, trace: str) -> Outcome:
    """What is compared of a cell, from the columns that were kept."""
    return Outcome(
        name=name,
        trace=trace,
        end_s=end_s,
        arrival_s=rows["arrival_s"],
        latency_s=rows["latency_s"],
        switches=int(rows["switches"][0]),
        fallbacks=int(np.count_nonzero(rows["how"] == kernel.FELL_BACK)),
        lost=int(np.count_nonzero(rows["how"] == kernel.LOST)),
    )


# Cells of one policy follow each other, as do policies that learn from the same traces: none is trained twice in a row.
@lru_cache(maxsize=2)
def _trained(policy: str, learning: str) -> Policy:
    table, training = _learning(learning)
    return train(policy, table, training)


@lru_cache(maxsize=2)
def _learning(text: str) -> tuple[CutTable, Training]:
    table, trained, setting, probes = json.loads(text)
    training = Training(
        traces=tuple(_unpacked_trace(each) for each in trained),
        setting=from_json(Setting, setting, where="setting"),
        probes=from_json(Probes, probes, where="probes"),
    )
    return table_from_json(table), training


def _packed_trace(trace: Trace) -> dict[str, Any]:
    values = {name: _packed(values) for name, values in trace.values.items()}
    return {"time_s": _packed(trace.time_s), "end_s": trace.end_s, "values": values, "source": trace.source}


def _unpacked_trace(plain: Mapping[str, Any]) -> Trace:
    values = {name: _unpacked(packed) for name, packed in plain["values"].items()}
    return Trace(time_s=_unpacked(plain["time_s"]), end_s=plain["end_s"], values=values, source=plain["source"])


def _packed(values: np.ndarray) -> dict[str, Any]:
    """Eight bytes a value as text, which is shorter than digits and exact; most fields of a trace never change."""
    array = np.ascontiguousarray(values, dtype="<f8")
    if len(array) and (array == array[0]).all():
        return {"same": float(array[0]), "count": len(array)}
    return {"float64": base64.b64encode(array.tobytes()).decode("ascii")}


def _unpacked(packed: Mapping[str, Any]) -> np.ndarray:
    if "same" in packed:
        return np.full(packed["count"], packed["same"])
    return np.frombuffer(base64.b64decode(packed["float64"]), dtype="<f8").astype(np.float64)
