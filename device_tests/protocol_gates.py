"""Gates of the protocol: before each round the machine must be idle and cool enough; if not: wait, flag or refuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from edge_deploy.core.benchmark import MachineState
from edge_deploy.core.clock import Clock
from edge_deploy.core.errors import BadInput, DeviceError

__all__ = ["Gate", "GatePolicy", "gate_doubts", "pass_gate", "why_closed"]

GatePolicy: TypeAlias = Literal["wait", "flag", "refuse", "off"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """When a machine may be measured.

    Attributes:
        policy: "wait" until it is idle and cool, at most `wait_s` over the whole run, then flag; "flag" in the report;
            "refuse" to measure; "off" does not look.
        busy_cores: Cores' worth of other work from which on the machine counts as busy.
        temperature_c: Of the hottest zone, from which on it counts as hot.
    """

    policy: GatePolicy = "flag"
    busy_cores: float = 0.25
    temperature_c: float = 80.0
    wait_s: float = 120.0

    def __post_init__(self) -> None:
        problems = []
        if self.policy not in ("wait", "flag", "refuse", "off"):
            problems.append(f"gate = {self.policy!r}: must be wait, flag, refuse or off.")
        if self.busy_cores < 0:
            problems.append(f"max load = {self.busy_cores}: must not be negative.")
        if self.temperature_c <= 0:
            problems.append(f"max temperature = {self.temperature_c}: must be positive degrees Celsius.")
        if self.wait_s < 0:
            problems.append(f"gate wait = {self.wait_s}: must not be negative.")
        if problems:
            raise BadInput(*problems)


def why_closed(gate: Gate, state: MachineState) -> tuple[str, ...]:
    """What keeps the gate closed; empty when it is open. What the machine does not tell closes nothing."""
    reasons = []
    if state.busy_cores is not None and state.busy_cores > gate.busy_cores:
        reasons.append(f"other work on {state.busy_cores:.2f} cores (limit {gate.busy_cores:g})")
    if state.temperature_c is not None and state.temperature_c > gate.temperature_c:
        reasons.append(f"{state.temperature_c:.0f} °C (limit {gate.temperature_c:g} °C)")
    return tuple(reasons)


def pass_gate(
    gate: Gate,
    look: Callable[[], MachineState | None],
    clock: Clock,
    *,
    waited_s: float = 0.0,
    pause: Callable[[float], None],
) -> tuple[MachineState | None, float]:
    """The state in which the round begins, and how long all rounds have waited by now.

    Args:
        look: Reads the device's state; None where it tells nothing.
        waited_s: By earlier rounds.
        pause: Waits for that many seconds.

    Raises:
        DeviceError: The policy is "refuse" and the gate is closed.
    """
    if gate.policy == "off":
        return None, waited_s
    while True:
        state = look()
        reasons = () if state is None else why_closed(gate, state)
        if not reasons or gate.policy == "flag":
            return state, waited_s
        if gate.policy == "refuse":
            raise DeviceError(
                f"gate: {'; '.join(reasons)}: the machine is not fit for measuring; wait until it is, or give "
                "--gate flag to measure all the same."
            )
        if waited_s >= gate.wait_s:
            return state, waited_s
        begun = clock.now_s()
        pause(min(2.0, gate.wait_s - waited_s))
        waited_s += max(clock.now_s() - begun, 1e-3)


def gate_doubts(gate: Gate, states: tuple[MachineState, ...], *, waited_s: float) -> tuple[str, ...]:
    """What a reader should know of the rounds that began behind a closed gate."""
    closed = [why_closed(gate, state) for state in states]
    bad = [reasons for reasons in closed if reasons]
    doubts = []
    if bad:
        worst = max(bad, key=len)
        waited = f" after waiting {waited_s:.0f} s" if waited_s else ""
        doubts.append(f"{len(bad)} of {len(states)} rounds began on a busy or hot machine{waited}: {'; '.join(worst)}")
    counts = [state.throttled for state in states if state.throttled is not None]
    if counts and counts[-1] > counts[0]:
        doubts.append(f"cores were slowed down for heat {counts[-1] - counts[0]} times while measuring")
    clocks = [state.clock_hz for state in states if state.clock_hz]
    if clocks and max(clocks) > 1.1 * min(clocks):
        doubts.append(f"the clock changed between {min(clocks) / 1e9:.2f} and {max(clocks) / 1e9:.2f} GHz")
    return tuple(doubts)
