"""Resident memory by kind: anonymous (weights that were copied, arenas) apart from mapped files. Linux only.

A model file that is mapped costs memory that the system can take back at any time; what is anonymous it cannot. Linux
keeps a peak of their sum only, so a second process watches the kinds while something runs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_deploy.core.benchmark import MemoryKinds

__all__ = ["memory_now", "watched"]

FIELDS = {"RssAnon": "anonymous_bytes", "RssFile": "mapped_bytes", "RssShmem": "shared_bytes"}
# A program of its own: a fork would double this process, a thread stands still while a library keeps Python's lock.
WATCHER = """
import select, sys, time
path, peak = "/proc/%s/status" % sys.argv[1], {}
sys.stdout.write("\\n"); sys.stdout.flush()
while True:
    # The last look comes after the end was asked for: this process may have had no turn before.
    is_end = select.select([sys.stdin], [], [], 0.001)[0]
    try:
        with open(path) as file:
            for line in file:
                if line.startswith("Rss"):
                    key, value = line.split()[:2]
                    peak[key[:-1]] = max(peak.get(key[:-1], 0), int(value))
    except OSError:
        break
    if is_end:
        break
sys.stdout.write(" ".join("%s=%d" % item for item in peak.items()))
"""


def memory_now(status: Path = Path("/proc/self/status")) -> MemoryKinds | None:
    """What is resident now; None where the system does not tell the kinds apart."""
    try:
        lines = status.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return _kinds({line.partition(":")[0]: int(line.split()[1]) for line in lines if line.startswith("Rss")})


@contextmanager
def watched() -> Iterator[Callable[[], MemoryKinds | None]]:
    """While the body runs, a second process looks at this one's memory about a thousand times a second.

    Yields a function that ends the watch and gives the largest value of each kind; None where nothing could be seen.
    """
    if memory_now() is None:
        yield lambda: None
        return
    command = [sys.executable, "-S", "-E", "-c", WATCHER, str(os.getpid())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it has begun

        def end() -> MemoryKinds | None:
            text = process.communicate(timeout=10)[0].decode("ascii", "replace")
            return _kinds({key: int(value) for key, value in (word.split("=") for word in text.split())})

        try:
            yield end
        finally:
            process.kill()


def _kinds(kilobytes: dict[str, int]) -> MemoryKinds | None:
    if "RssAnon" not in kilobytes:
        return None
    return MemoryKinds(**{name: kilobytes.get(key, 0) * 1024 for key, name in FIELDS.items()})
