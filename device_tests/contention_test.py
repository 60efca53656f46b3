"""A load is there while it is wanted, stays within what is safe, and is gone afterwards, also after an error."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from device_tests.contention import (
    available_memory_bytes,
    cpu_load,
    memory_bound_bytes,
    memory_load,
    usable_cores,
)
from edge_deploy.core.errors import BadInput


def children() -> set[int]:
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent == os.getpid() and (b"contention_child" in command or b"stress-ng" in command):
                found.add(int(entry.name))
    return found


def used_s(leaders: set[int]) -> float:
    """CPU time of whole process groups: stress-ng works in a child of its own."""
    ticks = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) in leaders:
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def test_a_cpu_load_takes_time_on_its_core_and_ends_with_its_block() -> None:
    with cpu_load(1.0, cores=usable_cores()[:1]) as how:
        assert how != "none"
        mine = children()
        assert len(mine) == 1
        begin = time.monotonic()
        while used_s(mine) < 0.05 and time.monotonic() - begin < 30:
            pass
        assert used_s(mine) >= 0.05
    assert not children()


def test_a_load_is_gone_after_an_interruption() -> None:
    with pytest.raises(KeyboardInterrupt), cpu_load(0.5):
        assert len(children()) == len(usable_cores())
        raise KeyboardInterrupt
    assert not children()


def test_no_load_starts_nothing() -> None:
    with cpu_load(0.0) as how, memory_load(0.0) as held:
        assert (how, held, children()) == ("none", 0, set())


def test_memory_is_held_page_by_page_and_given_back() -> None:
    with memory_load(0.002) as held:
        (child,) = children()
        resident = int(Path(f"/proc/{child}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        assert resident >= held > 0
    assert not children()


def test_a_margin_is_never_taken() -> None:
    assert memory_bound_bytes() <= available_memory_bytes() - (1 << 30)


def test_the_limit_of_a_container_counts_where_it_is_lower_than_the_machine(tmp_path: Path) -> None:
    meminfo, cgroup = tmp_path / "meminfo", tmp_path / "cgroup"
    cgroup.mkdir()
    meminfo.write_text("MemTotal: 9000 kB\nMemAvailable:    8000 kB\n")
    assert available_memory_bytes(meminfo=meminfo, cgroup=cgroup) == 8000 * 1024
    (cgroup / "memory.max").write_text("max\n")
    (cgroup / "memory.current").write_text("1000\n")
    assert available_memory_bytes(meminfo=meminfo, cgroup=cgroup) == 8000 * 1024
    (cgroup / "memory.max").write_text("5000\n")
    assert available_memory_bytes(meminfo=meminfo, cgroup=cgroup) == 4000


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_shares_out_of_range_are_refused(share: float) -> None:
    with pytest.raises(BadInput, match="between 0 and 1"), cpu_load(share):
        pass
    with pytest.raises(BadInput, match="between 0 and 1"), memory_load(share):
        pass
