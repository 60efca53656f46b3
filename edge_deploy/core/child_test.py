import os
import signal
import sys

import pytest

from edge_deploy.core.child import run_in_child
from edge_deploy.core.errors import BadInput, Refusal, ToolchainError, Unsupported


def add(first, second):
    sys.stdout.write("noise that a third-party library would make")
    return first + second


def refuse():
    raise Unsupported(
        "model net", refusals=(Refusal(layer="conv1", op="CONV_3D", reason="no kernel", remedy="drop it"),)
    )


def complain():
    raise BadInput("weights.npz: missing.")


def crash():
    os.kill(os.getpid(), signal.SIGSEGV)


def fail():
    raise RuntimeError("shape mismatch in pass 7")


def wait():
    signal.pause()


def call(name, **arguments):
    return run_in_child(f"edge_deploy.core.child_test:{name}", arguments, stage="the stage", timeout_s=20)


def test_a_child_returns_what_its_function_returns_and_its_noise_stays_away(capfd):
    assert call("add", first=2, second=3) == 5
    assert capfd.readouterr() == ("", "")


def test_our_errors_cross_the_process_border_whole():
    with pytest.raises(BadInput, match=r"weights\.npz: missing\."):
        call("complain")
    with pytest.raises(Unsupported) as error:
        call("refuse")
    assert error.value.refusals[0].layer == "conv1"
    assert error.value.problems == ("model net", "layer conv1 (CONV_3D): no kernel; drop it")


def test_a_crash_is_named_by_its_signal():
    with pytest.raises(ToolchainError, match="the stage: the child process died of SIGSEGV"):
        call("crash")


def test_a_foreign_exception_becomes_ours_and_keeps_its_cause():
    with pytest.raises(ToolchainError, match="the stage: RuntimeError: shape mismatch in pass 7") as error:
        call("fail")
    assert "Traceback" in str(error.value.__cause__)


def test_a_child_that_gives_no_answer_is_ended():
    with pytest.raises(ToolchainError, match="gave no answer within 2 s"):
        run_in_child("edge_deploy.core.child_test:wait", {}, stage="the stage", timeout_s=2)
