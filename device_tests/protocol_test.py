import pytest

from device_tests.protocol_cpus import parse_cpus
from device_tests.protocol_gates import Gate, gate_doubts, pass_gate, why_closed
from edge_deploy.core.benchmark import MachineState
from edge_deploy.core.clock import ManualClock
from edge_deploy.core.errors import BadInput, DeviceError

IDLE, BUSY = MachineState(busy_cores=0.01), MachineState(busy_cores=1.5)
HOT = MachineState(busy_cores=0.0, temperature_c=91.0)


def through(gate, *states):
    """Pass the gate while the machine goes through these states, the last one for good."""
    clock, waiting = ManualClock(), list(states)

    def look():
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]

    return pass_gate(gate, look, clock, pause=clock.advance)


def test_an_idle_and_cool_machine_passes_at_once():
    for policy in ("wait", "flag", "refuse"):
        assert through(Gate(policy=policy), IDLE) == (IDLE, 0.0)


def test_what_a_machine_does_not_tell_closes_nothing():
    assert why_closed(Gate(), MachineState()) == ()
    assert through(Gate(policy="refuse"), None) == (None, 0.0)


def test_waiting_ends_when_the_machine_is_fit_and_at_the_latest_after_its_time():
    state, waited_s = through(Gate(policy="wait"), BUSY, HOT, BUSY, IDLE)
    assert state == IDLE
    assert waited_s == pytest.approx(6.0)
    state, waited_s = through(Gate(policy="wait", wait_s=5.0), BUSY)
    assert state == BUSY
    assert waited_s == pytest.approx(5.0)


def test_a_refusal_names_load_and_heat():
    with pytest.raises(DeviceError, match=r"1\.50 cores"):
        through(Gate(policy="refuse"), BUSY)
    with pytest.raises(DeviceError, match="91 °C"):
        through(Gate(policy="refuse"), HOT)


def test_flagging_measures_and_says_how_many_rounds_were_doubtful():
    gate = Gate()
    assert through(gate, BUSY) == (BUSY, 0.0)
    (doubt,) = gate_doubts(gate, (IDLE, BUSY, BUSY), waited_s=0.0)
    assert doubt.startswith("2 of 3 rounds")
    assert gate_doubts(gate, (IDLE, IDLE), waited_s=0.0) == ()


def test_throttling_and_a_changing_clock_are_told():
    states = (MachineState(throttled=3, clock_hz=2.0e9), MachineState(throttled=5, clock_hz=1.2e9))
    heat, clock = gate_doubts(Gate(), states, waited_s=0.0)
    assert "2 times" in heat
    assert "1.20 and 2.00 GHz" in clock


def test_an_open_gate_does_not_look():
    assert pass_gate(Gate(policy="off"), lambda: 1 / 0, ManualClock(), pause=lambda s: None) == (None, 0.0)


def test_wrong_limits_are_all_named():
    with pytest.raises(BadInput) as caught:
        Gate(policy="maybe", busy_cores=-1, temperature_c=0, wait_s=-1)
    assert len(caught.value.problems) == 4


def test_cpus_are_numbers_and_ranges():
    assert parse_cpus("0,2-3") == (0, 2, 3)
    assert parse_cpus("auto") == "auto"
    for wrong in ("", "a", "3-1", "-1", "0,,1", "99999"):
        with pytest.raises(BadInput, match="CPU numbers"):
            parse_cpus(wrong)
