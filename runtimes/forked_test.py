import os
import signal
import sys
import threading

import pytest

from edge_deploy.core.errors import BadInput, ToolchainError
from runtimes.forked import Forked, may_fork, run_forked

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def fail(error: Exception) -> str:
    raise error


def die(words: str) -> str:
    os.write(2, words.encode())
    os.kill(os.getpid(), signal.SIGSEGV)
    return "lived on"


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_fork_answers_with_its_text_while_its_owner_goes_on():
    owner = os.getpid()
    with Forked(lambda: f"{os.getppid()} {os.getpid()}", stage="a stage", timeout_s=60) as fork:
        parent, own = map(int, fork.answer().split())
    assert parent == owner and own != owner
    assert is_gone(own)


def test_an_error_of_ours_keeps_its_class_and_others_are_told():
    with (
        Forked(lambda: fail(BadInput("a.tflite: one", "two")), stage="a stage", timeout_s=60) as fork,
        pytest.raises(BadInput) as caught,
    ):
        fork.answer()
    assert caught.value.problems == ("a.tflite: one", "two")
    with pytest.raises(ToolchainError, match=r"^a\.tflite: one$"):
        run_forked(lambda: fail(BadInput("a.tflite: one")), stage="a stage", timeout_s=60)
    with pytest.raises(ToolchainError, match="a stage: KeyError: 'b'"):
        run_forked(lambda: fail(KeyError("b")), stage="a stage", timeout_s=60)


def test_how_a_fork_died_is_told_with_its_last_words():
    with pytest.raises(ToolchainError, match=r"(?s)a stage: the child process died of SIGSEGV\..*a check failed"):
        run_forked(lambda: die("a check failed"), stage="a stage", timeout_s=60)
    with pytest.raises(ToolchainError, match=r"a stage: the child process ended with exit code 3\.$"):
        run_forked(lambda: os._exit(3), stage="a stage", timeout_s=60)


def test_a_fork_that_takes_too_long_is_ended():
    with pytest.raises(ToolchainError, match=r"a stage: gave no answer within 0\.1 s"):
        run_forked(lambda: str(threading.Event().wait()), stage="a stage", timeout_s=0.1)


def test_a_fork_ends_with_its_block_and_by_itself_when_its_owner_was_killed():
    reader, writer = os.pipe()

    def told() -> str:
        os.write(writer, f"{os.getpid()}\n".encode())
        return str(threading.Event().wait())

    with Forked(told, stage="a stage", timeout_s=60):
        first = int(os.read(reader, 100))
    assert is_gone(first)

    def owner() -> str:
        Forked(told, stage="a stage", timeout_s=0.1)
        os.kill(os.getpid(), signal.SIGKILL)
        return ""

    with pytest.raises(ToolchainError, match="SIGKILL"):
        run_forked(owner, stage="owner", timeout_s=60)
    os.close(writer)
    second = int(os.read(reader, 100))
    # The pipe's end: the last process that could write to it, the orphan, is gone.
    assert second != first and os.read(reader, 100) == b""
    os.close(reader)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells threads of libraries too")
def test_a_fork_that_lacks_a_thread_is_told_from_a_complete_one():
    def from_a_fork(has_second_thread: bool) -> str:
        if has_second_thread:
            threading.Thread(target=threading.Event().wait, daemon=True).start()
        with Forked(lambda: "", stage="the inner one", timeout_s=60) as fork:
            return f"{may_fork()} {fork.is_complete}"

    # A fork starts with one thread, whatever the tests before this one have left running.
    assert run_forked(lambda: from_a_fork(False), stage="a stage", timeout_s=60) == "True True"
    assert run_forked(lambda: from_a_fork(True), stage="a stage", timeout_s=60) == "False False"
