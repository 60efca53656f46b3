import subprocess
import sys

import numpy as np

from runtimes.probes.machine import load_average, peak_rss_bytes, read_machine


def test_this_machine_has_a_processor_and_memory():
    machine = read_machine()
    assert machine.cpu_model
    assert machine.isa
    assert machine.cores >= 1
    assert machine.ram_bytes > 1 << 20
    assert all(value >= 0 for value in load_average())


def test_the_peak_stays_when_the_memory_is_given_back():
    block = np.ones(200_000_000, np.uint8)
    grown = peak_rss_bytes()
    del block
    assert grown > 200_000_000
    assert peak_rss_bytes() > 0.98 * grown  # the kernel counts in batches, so that the figure wavers a little


def test_peak_memory_of_a_child_does_not_start_with_its_parents():
    block = np.ones(300_000_000, np.uint8)
    code = "from runtimes.probes.machine import peak_rss_bytes; print(peak_rss_bytes())"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(out.stdout) < block.nbytes
