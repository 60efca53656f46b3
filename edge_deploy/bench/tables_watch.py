"""Run a command under a memory limit and watch what its whole process tree holds.

The limit is RLIMIT_DATA of every process: private writable memory, touched or not. What is reported is the largest sum
of anonymous resident memory over the tree, looked up in /proc every few milliseconds; pages of mapped files are the
system's and do not count, and a page that a fork shares with its parent counts once.
"""

from __future__ import annotations

import resource
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Watched", "run_watched", "tree_anonymous_bytes"]

LOOK_S = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What became of a command.

    Attributes:
        anonymous_bytes: Peak of the tree.
        output: Its standard output and error, together.
    """

    code: int
    seconds: float
    anonymous_bytes: int
    output: str


def run_watched(command: Sequence[str], *, limit_bytes: int | None, log: Path, folder: Path | None = None) -> Watched:
    """Run to the end."""

    def limit() -> None:
        if limit_bytes is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))

    begin = time.monotonic()
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink, preexec_fn=limit, cwd=folder)
        most = 0
        try:
            while process.poll() is None:
                if tree_anonymous_bytes(process.pid) > most:
                    most = max(most, tree_anonymous_bytes(process.pid, shared_once=True))
                time.sleep(LOOK_S)
        finally:
            process.kill()  # what it has started ends with it
    seconds = time.monotonic() - begin
    text = log.read_text(encoding="utf-8", errors="replace")
    return Watched(code=process.returncode, seconds=seconds, anonymous_bytes=most, output=text)


def tree_anonymous_bytes(root: int, *, shared_once: bool = False) -> int:
    """Anonymous resident memory of a process and all that came from it.

    Args:
        shared_once: Split a page among the processes that share it (Pss_Anon), which takes longer than to count it in
            each of them (RssAnon).
    """
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue  # it has ended meanwhile
            children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry.name))
    total, waiting = 0, [root]
    while waiting:
        process = waiting.pop()
        waiting += children.get(process, [])
        total += _bytes_of(process, *(("smaps_rollup", "Pss_Anon:") if shared_once else ("status", "RssAnon:")))
    return total


def _bytes_of(process: int, file: str, key: str) -> int:
    try:
        for line in Path("/proc", str(process), file).read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(key):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
