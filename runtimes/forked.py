"""Run a function in a fork of this process: milliseconds instead of an interpreter's start, beside what goes on here.

A fork has only the thread that forked, so use it where this process has loaded libraries but started no work in them.
Where that is not known, `may_fork` rules it out beforehand, and `Forked.is_complete` tells afterwards.
"""

from __future__ import annotations

import faulthandler
import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_deploy.core.errors import EdgeDeployError, ToolchainError, error_from_json, error_to_json

__all__ = ["Forked", "may_fork", "run_forked"]

MOST_ANSWER_BYTES = 1 << 20
MOST_TEXT_CHARACTERS = 60000
TAIL_BYTES = 2000
LOOKS, LOOK_S = 5, 0.0005
GRACE_S = 1.0  # after which a fork that nobody waits for any more ends itself


def may_fork() -> bool:
    """Whether this system forks and says how many threads there are, and no Python thread but this one runs here."""
    return hasattr(os, "fork") and sys.platform.startswith("linux") and threading.active_count() == 1


def run_forked(function: Callable[[], str], *, stage: str, timeout_s: float) -> str:
    """Call the function in a fork and return its text; what it prints is lost.

    Raises:
        ToolchainError: The fork died, ran too long, or the function raised; an error of ours keeps its message.
    """
    with Forked(function, stage=stage, timeout_s=timeout_s) as fork:
        try:
            return fork.answer()
        except ToolchainError:
            raise
        except EdgeDeployError as error:
            raise ToolchainError(str(error)) from error


class Forked:
    """A function under way in a fork; it ends with the `with` block, also in the middle of its work.

    Attributes:
        is_complete: This process has one thread, on Linux: the fork lacks none and can meet no lock that a missing one
            holds. Linear algebra libraries end their threads before a fork and start them again when they need them, so
            that those do not count.
    """

    def __init__(self, function: Callable[[], str], *, stage: str, timeout_s: float) -> None:
        """Start it.

        Args:
            stage: What the user should read when it fails, e.g. "first load of resnet8.tflite".
            timeout_s: From now; it is ended then, also when this process is gone.
        """
        self._stage = stage
        self._timeout_s = timeout_s
        self._deadline = time.monotonic() + timeout_s
        # Without a name in any folder: nothing is left behind, however this process ends.
        self._log = os.memfd_create("log") if hasattr(os, "memfd_create") else os.open(os.devnull, os.O_RDWR)
        self._reader, writer = os.pipe()
        self._status = 0
        self._pid: int | None = os.fork()
        if self._pid == 0:
            os.close(self._reader)
            _work(function, writer, self._log, timeout_s + GRACE_S)
        os.close(writer)
        self.is_complete = sys.platform.startswith("linux") and _has_one_thread()

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        os.close(self._reader)
        os.close(self._log)

    def answer(self) -> str:
        """Wait for it and return its text.

        Raises:
            EdgeDeployError: The one the function raised.
            ToolchainError: The fork died, ran too long, or the function raised anything else.
        """
        text, in_time = _read(self._reader, self._deadline)
        self._end(is_killed=not in_time)
        if not in_time:
            raise ToolchainError(f"{self._stage}: gave no answer within {self._timeout_s:g} s.")
        try:
            said: dict[str, Any] = json.loads(text)
        except ValueError as error:
            raise ToolchainError(f"{self._stage}: the child process {self._how()}{self._last_words()}") from error
        if "error" in said:
            raise error_from_json(said["error"])
        if "failure" in said:
            raise ToolchainError(f"{self._stage}: {said['failure']}")
        return str(said["value"])

    def _end(self, *, is_killed: bool = True) -> None:
        if self._pid is None:
            return
        pid, self._pid = self._pid, None
        if is_killed:
            os.kill(pid, signal.SIGKILL)
        try:
            _, self._status = os.waitpid(pid, 0)
        except ChildProcessError:  # a process that ignores SIGCHLD is not told how its children ended
            self._status = 0

    def _how(self) -> str:
        if os.WIFSIGNALED(self._status):
            return f"died of {signal.Signals(os.WTERMSIG(self._status)).name}."
        return f"ended with exit code {os.WEXITSTATUS(self._status)}."

    def _last_words(self) -> str:
        size = os.fstat(self._log).st_size
        start = max(0, size - TAIL_BYTES)
        tail = os.pread(self._log, size - start, start).decode("utf-8", errors="replace").strip() if size else ""
        return f" Its last words:\n{tail}" if tail else ""


def _has_one_thread() -> bool:
    for _ in range(LOOKS):
        if len(list(Path("/proc/self/task").iterdir())) == 1:
            return True
        time.sleep(LOOK_S)  # a thread that was waited for is still listed for a moment
    return False


def _work(function: Callable[[], str], writer: int, log: int, alarm_s: float) -> None:
    # Nothing may leave this function: the parent's stack lies above it.
    try:
        faulthandler.disable()  # its report of a crash would go past the redirection below
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for stream in (1, 2):
            os.dup2(log, stream)
        # An endless loop in the library must not outlive an owner that was killed.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, alarm_s)
        said: dict[str, Any]
        try:
            said = {"value": function()[:MOST_TEXT_CHARACTERS]}
        except EdgeDeployError as error:
            said = {"error": error_to_json(error)}
        except Exception as error:  # noqa: BLE001  # whatever a third-party library raises is told to the parent
            said = {"failure": f"{type(error).__name__}: {error}"[:MOST_TEXT_CHARACTERS]}
        left = json.dumps(said).encode()
        while left:
            left = left[os.write(writer, left) :]
        code = 0
    except BaseException:  # noqa: BLE001  # see above
        code = 1
    finally:
        os._exit(code)


def _read(reader: int, deadline: float) -> tuple[bytes, bool]:
    """What the fork wrote until it closed its end, and whether it did so in time."""
    answer = b""
    while len(answer) < MOST_ANSWER_BYTES:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([reader], [], [], left)[0]:
            return answer, False
        part = os.read(reader, 1 << 16)
        if not part:
            break
        answer += part
    return answer, True
