"""Start from the cost model, correct it from what was observed, and leave the static cut only for a gain that is sure.

Three things are learned. How long transfers really take after a measured rate (`link_memory`): from the training
traces, then from every measurement. How far edge, uplink and cloud are off the model: one factor each, the moving
geometric mean of observed over expected seconds of answered requests, as SPINN's scale factors (Laskaridis et al.,
MobiCom 2020). And how sure that is: another cut than the static one is chosen only when its expected latency is lower
by more than twice the standard error of the difference, so that rare conditions do not invite bets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edge_deploy.core.link import transfer_end
from partitioner.cost import cost, slowdowns
from partitioner.cut_table import CutTable
from partitioner.link_memory import FLOOR_BPS, LinkMemory, dead_floor, dead_ticks, empty, look_back_s, recall, remember
from partitioner.measured import measured, tick_times
from partitioner.policy import Observation, Policy, State, Training, static_cut
from partitioner.setting import finish_on_edge_s, queueing_s

__all__ = ["Learned", "Learning", "train"]

# Without a fallback a transfer counts as this long at most.
NEVER_S = 60.0
LOOK_BACK_TICKS = 8
# Weight of a new observation in a factor, the range a factor can take, and the seconds after which one that is not
# observed has gone back most of the way to the model: what is avoided is not seen to have become better.
FORGETS = 0.05
FACTORS = (0.05, 20.0)
UNSEEN_S = 300.0
# A single request tells no more than this ratio: a transfer that met a dead link says nothing about the others.
MOST_TOLD = 4.0
ENDLESS_BPS = 1e15


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Learning:
    """What the policy remembers.

    Attributes:
        link: See `link_memory`.
        rates: Uplinks measured at the last ticks, oldest first; `dead_for`: ticks that the link had been dead then.
        edge, send, cloud: Observed over expected seconds.
        slow_edge, slow_cloud: Slowdowns under the newest conditions; `send_s`: expected on the uplink, by cut.
    """

    link: LinkMemory
    rates: tuple[float, ...] = ()
    dead_for: tuple[int, ...] = ()
    edge: float = 1.0
    send: float = 1.0
    cloud: float = 1.0
    slow_edge: float = 1.0
    slow_cloud: float = 1.0
    send_s: np.ndarray | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Learned(Policy):
    """The policy.

    Attributes:
        link: What the training traces taught.
        least_down_bps: A downlink that is dead now is taken to carry this much when the answer comes.
        sure: Standard errors by which a gain has to exceed zero.
        margin: Share of the latency that has to be gained on top.
        cool_down_s: No switch before that long after the last one, except back to the static cut.
        horizon_s: A switch has to pay for itself by the requests of that time.
    """

    link: LinkMemory
    least_down_bps: float = FLOOR_BPS
    sure: float = 2.0
    margin: float = 0.03
    cool_down_s: float = 0.0
    horizon_s: float = 10.0

    sees_requests = True

    def start(self) -> State:
        """With what training taught."""
        return State(cut=self.first, memory=Learning(link=self.link))

    def look(self, conditions: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """All but the uplink by the cost model, on a link that is never the matter: before anything learned."""
        measured = {name: np.atleast_1d(np.asarray(values, dtype=float)) for name, values in conditions.items()}
        uplink = measured["uplink_bps"]
        # The answer comes after the request got through, so the wait for a dead link is in the memory of the uplink.
        downlink = np.maximum(measured["downlink_bps"], self.least_down_bps)
        costs = cost(
            self.table, {**measured, "uplink_bps": np.full(len(uplink), ENDLESS_BPS), "downlink_bps": downlink}
        )
        slow_edge, slow_cloud = _slowdowns(self.table, measured, len(uplink))
        return {
            "uplink_bps": uplink,
            "edge_s": costs.edge_s + costs.encode_s,
            "link_s": costs.rtt_s + costs.queue_s + costs.downlink_s,
            "cloud_s": costs.cloud_s,
            "slow_edge": slow_edge,
            "slow_cloud": slow_cloud,
        }

    def foresee(self, state: State, looked: Mapping[str, np.ndarray]) -> tuple[State, np.ndarray]:
        """Expected latency, plus what it may exceed the static cut's by in bad luck; tick after tick."""
        learning: Learning = state.memory
        rows = np.empty((len(looked["uplink_bps"]), len(self.table.cuts)))
        for tick in range(len(rows)):
            now = {name: values[tick] for name, values in looked.items()}
            learning = self._look_back(self._forget_unseen(learning, state.cut), float(now["uplink_bps"]))
            learning, rows[tick] = self._expect(learning, now)
        return State(cut=state.cut, since_s=state.since_s, memory=learning), rows

    def choose(self, state: State, now_s: float, best: int, row: np.ndarray) -> State:
        """The best cut for a sure gain; back to the static one as soon as that is expected to be as good."""
        here, there = float(row[state.cut]), float(row[best])
        if best == state.cut or not here - there > self.margin * here + self._price(best):
            if state.cut != self.first and row[self.first] < here:
                return State(cut=self.first, since_s=now_s, memory=state.memory)
            return state
        if now_s - state.since_s < self.cool_down_s and best != self.first:
            return state
        return State(cut=best, since_s=now_s, memory=state.memory)

    def observe(self, state: State, seen: Sequence[Observation]) -> State:
        """Move the factors towards what requests took."""
        learning: Learning = state.memory
        table, edge, send, cloud = self.table, learning.edge, learning.send, learning.cloud
        for request in seen:
            cut = request.cut
            expected = table.edge_s[cut] * learning.slow_edge
            if expected > 0:
                edge = _towards(edge, request.edge_s / expected)
            if request.cloud_s is not None and table.cloud_s[cut] > 0:
                said = (table.cloud_s[cut] + table.decode_s[cut]) * learning.slow_cloud
                cloud = _towards(cloud, request.cloud_s / said)
            if request.send_s is not None and learning.send_s is not None and learning.send_s[cut] > 0:
                send = _towards(send, request.send_s / learning.send_s[cut])
        return State(cut=state.cut, since_s=state.since_s, memory=replace(learning, edge=edge, send=send, cloud=cloud))

    def _forget_unseen(self, learning: Learning, cut: int) -> Learning:
        """What the cut in force does not use drifts back to the model."""
        kept = math.exp(-self.setting.tick_s / UNSEEN_S)
        if not self.table.crosses[cut]:
            return replace(learning, send=learning.send**kept, cloud=learning.cloud**kept)
        return learning if self.table.edge_s[cut] > 0 else replace(learning, edge=learning.edge**kept)

    def _look_back(self, learning: Learning, rate: float) -> Learning:
        """Learn what a transfer took that began when the oldest of the kept rates had been measured."""
        rates = (*learning.rates, rate)
        before = learning.dead_for[-1] if learning.dead_for else 0
        dead_for = (*learning.dead_for, int(dead_ticks(learning.link, np.array([rate]), before)[0]))
        if len(rates) <= LOOK_BACK_TICKS:
            return replace(learning, rates=rates, dead_for=dead_for)
        tick_s = self.setting.tick_s
        start = 0.5 * tick_s + self.table.edge_s * learning.edge * learning.slow_edge
        took = look_back_s(learning.link, np.array(rates[1:]), tick_s, np.mod(start, 0.5 * LOOK_BACK_TICKS * tick_s))
        # What was not done within the ticks looked at goes on at the mean of their rates.
        mean = max(float(np.mean(rates[1:])), 1e-3)
        took = np.where(np.isfinite(took), took, np.maximum(learning.link.up_bits / mean, 0.5 * tick_s))
        link = remember(learning.link, np.array(rates[:1]), np.array(dead_for[:1]), took[None])
        return replace(learning, rates=rates[1:], dead_for=dead_for[1:], link=link)

    def _expect(self, learning: Learning, now: dict[str, np.ndarray]) -> tuple[Learning, np.ndarray]:
        table, setting = self.table, self.setting
        slow_edge, slow_cloud = float(now["slow_edge"]), float(now["slow_cloud"])
        at = now["uplink_bps"].reshape(1), np.array(learning.dead_for[-1:])
        sends, error, late = (values[0] for values in recall(learning.link, *at))
        pays = np.where(table.crosses, 1.0 - table.exit_share, 0.0)
        sending = np.minimum(sends * learning.send, learning.link.most_s)
        on_edge = now["edge_s"] * learning.edge
        answer = now["link_s"] + now["cloud_s"] * learning.cloud
        rest = finish_on_edge_s(table)
        if rest is not None and math.isfinite(setting.fallback_after_s):
            answer = np.minimum(answer, setting.fallback_after_s)
            local = np.minimum(late, 1.0) * rest * slow_edge * learning.edge
            answer = answer * (1 - np.minimum(late, 1.0)) + pays * local
        row = on_edge + pays * sending + answer
        # No queue settles in the seconds for which a link is dead: what waits for it goes through at once afterwards.
        if setting.rate_hz and not learning.dead_for[-1]:
            row = row + queueing_s(on_edge, setting.rate_hz) + queueing_s(pays * sending, setting.rate_hz)
        # Errors of two cuts that both cross come from the same rate: only the difference between them is unsure.
        unsure = pays * error * learning.send
        row = row + self.sure * np.abs(unsure - unsure[self.first])
        return replace(learning, slow_edge=slow_edge, slow_cloud=slow_cloud, send_s=sends), row

    def _price(self, cut: int) -> float:
        if not self.setting.rate_hz:
            return 0.0
        penalty = self.setting.switch_penalty_s(self.table)[cut]
        return float(penalty / (self.setting.rate_hz * self.horizon_s))


def train(table: CutTable, training: Training, name: str, argument: str) -> Learned:
    """Fill the link memory with what transfers took on the training traces."""
    setting = training.setting
    looks = [(trace, tick_times(trace.end_s, setting.tick_s)) for trace in training.traces]
    seen = [(trace, ticks, measured(trace, ticks, setting.tick_s, training.probes)) for trace, ticks in looks]
    usual = {
        name: float(np.median(np.concatenate([told[name] for *_, told in seen]))) if seen else 0.0
        for name in ("uplink_bps", "downlink_bps")
    }
    link = empty(table.up_bytes, min(setting.fallback_after_s, NEVER_S), usual["uplink_bps"])
    for trace, ticks, told in seen:
        slow = slowdowns(table, trace.values)[0]
        for phase in range(training.phases):
            start = (ticks + (phase + 0.5) / training.phases * setting.tick_s)[:, None]
            sent = start + slow[trace.index(start)] * (table.edge_s + table.encode_s)
            size = np.maximum(table.up_bytes, 0.125) * np.ones_like(sent)
            took = transfer_end(trace.time_s, trace.values["uplink_bps"], sent, size) - sent
            link = remember(link, told["uplink_bps"], dead_ticks(link, told["uplink_bps"]), took)
    return Learned(
        name=name,
        table=table,
        setting=setting,
        first=static_cut(table, training),
        link=link,
        least_down_bps=dead_floor(usual["downlink_bps"]),
    )


def _slowdowns(table: CutTable, measured: Mapping[str, np.ndarray], count: int) -> tuple[np.ndarray, np.ndarray]:
    zero = np.zeros(count)
    given = {name: measured.get(name, zero) for name in ("edge_load", "edge_memory", "cloud_load", "cloud_memory")}
    on_edge, on_cloud = slowdowns(table, given)
    return np.broadcast_to(on_edge, count), np.broadcast_to(on_cloud, count)


def _towards(factor: float, seen: float) -> float:
    """A step of the moving geometric mean."""
    told = min(max(seen / factor, 1 / MOST_TOLD), MOST_TOLD)
    return float(min(max(factor * told**FORGETS, FACTORS[0]), FACTORS[1]))
