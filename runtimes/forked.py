"""Run a function in a fork of this process: milliseconds instead of an interpreter's start, for many files in a row.

A fork has only the thread that forked, so use it where this process has loaded libraries but started no work in them.
"""

from __future__ import annotations

import faulthandler
import os
import select
import signal
import time
from collections.abc import Callable

from edge_deploy.core.errors import EdgeDeployError, ToolchainError

__all__ = ["run_forked"]

MOST_ANSWER_BYTES = 1 << 20


def run_forked(function: Callable[[], str], *, stage: str, timeout_s: float) -> str:
    """Call the function in a fork and return its text; what it prints is lost.

    Raises:
        ToolchainError: The fork died, ran too long, or the function raised; an error of ours keeps its message.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _answer(function, writer)
    os.close(writer)
    try:
        answer, in_time = _read(reader, timeout_s)
        if not in_time:
            os.kill(pid, signal.SIGKILL)
    finally:
        os.close(reader)
        _, status = os.waitpid(pid, 0)
    if not in_time:
        raise ToolchainError(f"{stage}: gave no answer within {timeout_s:g} s.")
    if os.WIFSIGNALED(status):
        raise ToolchainError(f"{stage}: the child process died of {signal.Signals(os.WTERMSIG(status)).name}.")
    text = answer.decode("utf-8", errors="replace")
    if os.WEXITSTATUS(status):
        raise ToolchainError(text or f"{stage}: the child process ended with exit code {os.WEXITSTATUS(status)}.")
    return text


def _answer(function: Callable[[], str], writer: int) -> None:
    # Nothing may leave this function: the parent's stack lies above it.
    code = 1
    try:
        faulthandler.disable()  # its report of a crash would go past the redirection below
        silence = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silence, stream)
        try:
            text, code = function(), 0
        except EdgeDeployError as error:
            text = str(error)
        except Exception as error:  # noqa: BLE001  # whatever a third-party library raises is told to the parent
            text = f"{type(error).__name__}: {error}"
        os.write(writer, text.encode("utf-8", errors="replace")[:60000])
    finally:
        os._exit(code)


def _read(reader: int, timeout_s: float) -> tuple[bytes, bool]:
    """What the fork wrote until it closed its end, and whether it did so in time."""
    deadline = time.monotonic() + timeout_s
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
