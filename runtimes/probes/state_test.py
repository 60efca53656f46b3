import os
import subprocess
import sys

import numpy as np
import pytest

from runtimes.probes.memory import memory_now, watched
from runtimes.probes.state import pick_cpus, read_state

STAT = "cpu  {all}\ncpu0 {one} 0 0 {idle} 0 0 0 0 0 0\ncpu1 0 0 0 100 0 0 0 0 0 0\nintr 5\n"


def machine(root, *, busy, idle, temperature=None, throttled=None, clocks=()):
    (root / "proc").mkdir(parents=True, exist_ok=True)
    (root / "proc/stat").write_text(STAT.format(all="0", one=busy, idle=idle))
    if temperature is not None:
        zone = root / "sys/class/thermal/thermal_zone0"
        zone.mkdir(parents=True)
        (zone / "temp").write_text(f"{temperature}\n")
    for cpu, highest in enumerate(clocks):
        folder = root / f"sys/devices/system/cpu/cpu{cpu}"
        (folder / "cpufreq").mkdir(parents=True)
        (folder / "cpufreq/cpuinfo_max_freq").write_text(str(highest))
        (folder / "cpufreq/scaling_cur_freq").write_text(str(highest // 2))
        if throttled is not None:
            (folder / "thermal_throttle").mkdir()
            (folder / "thermal_throttle/core_throttle_count").write_text(str(throttled))


def test_load_is_what_others_did_while_this_process_slept(tmp_path):
    machine(tmp_path, busy=100, idle=100)
    state = read_state(root=tmp_path, wait=lambda s: machine(tmp_path, busy=150, idle=100 + 150))
    assert state.busy_cores == pytest.approx(50 / 200 * 2)


def test_heat_clock_and_throttling_are_read_where_the_system_tells_them(tmp_path):
    machine(tmp_path, busy=0, idle=1, temperature=65500, throttled=2, clocks=(1_000_000, 3_000_000))
    state = read_state(root=tmp_path, wait=lambda s: None)
    assert (state.temperature_c, state.clock_hz, state.throttled) == (65.5, 1.5e9, 4)


def test_a_system_that_tells_nothing_is_no_error(tmp_path):
    state = read_state(root=tmp_path, wait=lambda s: None)
    assert (state.busy_cores, state.temperature_c, state.clock_hz, state.throttled) == (None, None, None, None)


def test_the_fastest_cores_are_taken_and_the_last_of_equals(tmp_path):
    machine(tmp_path, busy=0, idle=1, clocks=(1, 3, 3, 2))
    assert pick_cpus(1, allowed=(0, 1, 2, 3), root=tmp_path) == (2,)
    assert pick_cpus(3, allowed=(0, 1, 2, 3), root=tmp_path) == (1, 2, 3)
    assert pick_cpus(8, allowed=(0, 1), root=tmp_path) == (0, 1)


@pytest.mark.skipif(memory_now() is None, reason="this system does not tell kinds of memory apart")
def test_copied_memory_is_anonymous_and_a_mapped_file_is_not(tmp_path):
    size = 64 << 20
    (tmp_path / "weights").write_bytes(os.urandom(1 << 20) * 64)
    code = (
        "import mmap, sys\n"
        "from runtimes.probes.memory import memory_now, watched\n"
        "import json, numpy as np\n"
        "base = memory_now()\n"
        "with watched() as end:\n"
        "    file = open(sys.argv[1], 'rb')\n"
        "    if sys.argv[2] == 'map':\n"
        "        view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)\n"
        "        total = int(np.frombuffer(view, np.uint8)[::512].sum())\n"
        "    else:\n"
        "        view = file.read()\n"
        "    peak = end()\n"
        "print(peak.anonymous_bytes - base.anonymous_bytes, peak.mapped_bytes - base.mapped_bytes)\n"
    )
    grown = {}
    for how in ("map", "read"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "weights"), how], capture_output=True, text=True, check=True
        )
        grown[how] = [int(word) for word in done.stdout.split()]
    assert grown["map"][1] > 0.9 * size > 0.2 * size > grown["map"][0]
    assert grown["read"][0] > 0.9 * size > 0.2 * size > grown["read"][1]


@pytest.mark.skipif(memory_now() is None, reason="this system does not tell kinds of memory apart")
def test_a_peak_is_never_below_what_is_there_at_the_end():
    with watched() as end:
        kept = np.ones(1 << 22)
        peak = end()
    assert peak.anonymous_bytes >= kept.nbytes
