import pytest

from runtimes.probes.pressure import EdgeProbe, cpu_pressure


def machine(root, *, busy, idle, available, pressure="12.50"):
    (root / "proc/pressure").mkdir(parents=True, exist_ok=True)
    (root / "proc/stat").write_text(f"cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\ncpu0 0 0 0 0 0 0 0 0\n")
    (root / "proc/meminfo").write_text(f"MemTotal: 9000000 kB\nMemAvailable: {available} kB\n")
    (root / "proc/pressure/cpu").write_text(f"some avg10={pressure} avg60=1.00 avg300=0.00 total=5\n")


def test_load_and_memory_are_what_others_took_since_the_last_look(tmp_path):
    machine(tmp_path, busy=1_000_000, idle=1_000_000, available=8_000_000)
    probe = EdgeProbe(root=tmp_path)
    # So many ticks that those of this very process do not count.
    machine(tmp_path, busy=1_000_000 + 25_000_000, idle=1_000_000 + 75_000_000, available=2_000_000)
    state = probe.read()
    assert state.load == pytest.approx(0.25, abs=0.01)
    assert state.memory == pytest.approx(0.75, abs=0.05)
    assert state.cpu_pressure == pytest.approx(0.125)
    assert state.memory_pressure is None
    assert probe.read().load == state.load  # no tick has passed


def test_a_system_that_tells_nothing_is_no_error(tmp_path):
    state = EdgeProbe(root=tmp_path).read()
    assert (state.load, state.memory, state.cpu_pressure) == (0.0, 0.0, None)
    assert cpu_pressure(tmp_path, "io") is None


def test_where_only_pressure_is_told_it_stands_for_the_load(tmp_path):
    machine(tmp_path, busy=1, idle=1, available=1, pressure="40.00")
    (tmp_path / "proc/stat").unlink()
    assert EdgeProbe(root=tmp_path).read().load == pytest.approx(0.4)


def test_what_this_process_does_is_not_the_load_of_others():
    probe = EdgeProbe()
    total = 0
    for number in range(3_000_000):
        total += number
    state = probe.read()
    assert 0 <= state.load <= 1
    assert 0 <= state.memory <= 1
