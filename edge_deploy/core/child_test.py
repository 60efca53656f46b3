import contextlib
import os
import select
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from edge_deploy.core.child import Child, run_in_child
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


def read_input():
    return sys.stdin.read()


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


def count():
    seen.append(len(seen))
    return len(seen)


seen: list[int] = []


def test_calls_of_one_child_share_what_the_first_one_made():
    with Child() as child:
        for number in (1, 2, 3):
            assert run_in_child("edge_deploy.core.child_test:count", {}, stage="stage", child=child) == number


def test_a_child_that_refused_answers_the_next_call():
    with Child() as child:
        with pytest.raises(BadInput):
            child.call("edge_deploy.core.child_test:complain", {}, stage="stage")
        assert child.call("edge_deploy.core.child_test:add", {"first": 1, "second": 1}, stage="stage") == 2


def test_a_dead_child_is_named_by_every_later_call():
    with Child() as child:
        for _ in range(2):
            with pytest.raises(ToolchainError, match="died of SIGSEGV"):
                child.call("edge_deploy.core.child_test:crash", {}, stage="stage")


def test_modules_to_warm_up_with_may_be_missing():
    with Child(warm=("no_such_module", "json")) as child:
        assert child.call("edge_deploy.core.child_test:add", {"first": 1, "second": 1}, stage="stage") == 2


def test_what_a_child_runs_reads_no_requests_from_its_standard_input():
    with Child() as child:
        assert child.call("edge_deploy.core.child_test:read_input", {}, stage="stage") == ""
        assert child.call("edge_deploy.core.child_test:read_input", {}, stage="stage") == ""


def test_closing_ends_a_call_in_another_thread():
    with ThreadPoolExecutor(1) as pool, Child() as child:
        waiting = pool.submit(child.call, "edge_deploy.core.child_test:wait", {}, stage="the stage")
        assert not waiting.done()
        child.close()
        with pytest.raises(ToolchainError):
            waiting.result(timeout=20)


def tell_and_wait(path):
    partial = f"{path}.partial"
    with open(partial, "w", encoding="utf-8") as file:  # noqa: PTH123  # a child's function takes plain values
        file.write(str(os.getpid()))
    os.rename(partial, path)  # noqa: PTH104
    signal.pause()


KILLED_OWNER = """
import sys, threading
from edge_deploy.core.child import Child
child = Child()
function = "edge_deploy.core.child_test:tell_and_wait"
call = threading.Thread(target=child.call, args=(function, {"path": sys.argv[1]}), kwargs={"stage": "wait"})
call.start()
call.join()
"""


def test_a_child_ends_in_the_middle_of_a_call_when_its_owner_is_killed(tmp_path):
    if not hasattr(os, "pidfd_open"):
        pytest.skip("needs Linux")
    told = tmp_path / "pid"
    with subprocess.Popen([sys.executable, "-c", KILLED_OWNER, str(told)]) as owner:
        for _ in range(3000):
            if told.exists():
                break
            with contextlib.suppress(subprocess.TimeoutExpired):
                owner.wait(0.02)
        child = int(told.read_text())
        waiting = select.poll()
        waiting.register(os.pidfd_open(child), select.POLLIN)
        owner.kill()
        owner.wait()
        assert waiting.poll(60_000), "the child lives on"
