"""The partitioner's own controller behind a live session: what was measured and answered in, a plan out."""

from __future__ import annotations

from collections.abc import Sequence

from edge_deploy.core.conditions import Conditions
from edge_deploy.core.partition_plan import PartitionPlan
from partitioner.controller import observe, step
from partitioner.cut_table import CutTable
from partitioner.live.happened import BY_CLOUD, FELL_BACK, LOST, Happened
from partitioner.policy import Observation, Policy

__all__ = ["Decide"]


class Decide:
    """Keeps the policy's state between ticks; used by one thread.

    Args:
        cuts: Ids in the order of the session, which requests name by number.
    """

    def __init__(self, policy: Policy, cuts: Sequence[str]) -> None:
        self._policy = policy
        self._state = policy.start()
        self._index = {
            number: policy.table.cuts.index(cut) for number, cut in enumerate(cuts) if cut in policy.table.cuts
        }

    @property
    def table(self) -> CutTable:
        """What the policy believes of the cuts."""
        return self._policy.table

    @property
    def name(self) -> str:
        """Of the policy."""
        return self._policy.name

    def tick(
        self, now_s: float, conditions: Conditions, happened: Sequence[Happened], rtt_s: float, downlink_bps: float
    ) -> PartitionPlan:
        """The plan that holds from now on.

        Args:
            happened: Requests since the last tick, in the order of their answers.
            rtt_s: Taken off what requests took on the way, to tell how long they were sent; `downlink_bps` likewise.
        """
        if self._policy.sees_requests:
            seen = [
                self._observation(one, rtt_s, downlink_bps)
                for one in happened
                # One that was answered here because nobody asked the cloud says nothing of its cut.
                if one.how != LOST and one.cut in self._index and (one.how != FELL_BACK or one.asked_cloud)
            ]
            self._state = observe(self._policy, self._state, seen)
        self._state, plan = step(self._policy, self._state, now_s, conditions)
        return plan

    def _observation(self, one: Happened, rtt_s: float, downlink_bps: float) -> Observation:
        cut = self._index[one.cut]
        send_s = cloud_s = None
        if one.how == BY_CLOUD:
            cloud_s = one.cloud_s if one.cloud_s >= 0 else float(self.table.cloud_s[cut])
            back_s = 8 * one.down_bytes / downlink_bps if downlink_bps else 0.0
            on_wire = one.answered_s - one.encoded_s - cloud_s - max(one.queue_s, 0.0)
            send_s = max(on_wire - rtt_s - back_s, 0.0)
        return Observation(
            cut=cut,
            edge_s=one.headed_s - one.begun_s,
            send_s=send_s,
            cloud_s=cloud_s,
            latency_s=one.latency_s,
            fell_back=one.how == FELL_BACK,
        )
