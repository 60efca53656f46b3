import sys
from pathlib import Path

import pytest

from device_tests.device_list import connect, find_device
from device_tests.transports.local import LocalChannel
from edge_deploy.core.errors import DeviceError

ECHO = "import json, sys\nfor line in sys.stdin: print(json.dumps({'value': json.loads(line)}), flush=True)"


@pytest.fixture
def channel():
    opened = []

    def start(code):
        opened.append(LocalChannel([sys.executable, "-c", code], environment={}))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


def test_closing_leaves_the_pushed_original_and_removes_the_copy(tmp_path):
    made = connect(find_device("host"))
    (tmp_path / "model.bin").write_bytes(b"abc")
    pushed = made.push(tmp_path / "model.bin", "model.bin")
    made.close()
    assert (tmp_path / "model.bin").read_bytes() == b"abc"
    assert not Path(pushed).exists()


def test_answers_longer_than_a_pipe_arrive_whole(channel):
    big = {"values": list(range(100_000))}
    assert channel(ECHO).ask(big, timeout_s=60) == big


def test_the_signal_that_killed_a_worker_and_its_last_words_are_named(channel):
    dying = channel(
        "import os, sys\n"
        "sys.stdin.readline()\n"
        "print('bad tensor', file=sys.stderr, flush=True)\n"
        "os.kill(os.getpid(), 11)\n"
    )
    with pytest.raises(DeviceError, match=r"(?s)died of SIGSEGV.*bad tensor"):
        dying.ask({}, timeout_s=60)
    with pytest.raises(DeviceError, match="died of SIGSEGV"):
        dying.ask({}, timeout_s=60)


def test_a_worker_that_just_ends_is_reported_with_its_exit_code(channel):
    with pytest.raises(DeviceError, match="exit code 3"):
        channel("import sys; sys.stdin.readline(); sys.exit(3)").ask({}, timeout_s=60)


def test_a_silent_worker_is_given_up(channel):
    with pytest.raises(DeviceError, match="no answer within 0 s"):
        channel("import sys; sys.stdin.read()").ask({}, timeout_s=0.05)


def test_closing_twice_is_fine_also_after_a_death(channel):
    dead = channel("raise SystemExit(1)")
    with pytest.raises(DeviceError):
        dead.ask({}, timeout_s=60)
    dead.close()
    dead.close()


def test_a_pushed_program_runs_whatever_its_mode_is_here(tmp_path):
    (tmp_path / "tool").write_text("#!/bin/sh\necho said $1; exit 3\n")
    (tmp_path / "tool").chmod(0o644)
    made = connect(find_device("host"))
    try:
        assert made.complete([made.push(tmp_path / "tool", "tool"), "x"], timeout_s=60) == (3, "said x\n")
        (tmp_path / "hang").write_text("#!/bin/sh\nsleep 300\n")
        with pytest.raises(DeviceError, match="hang: did not end within 0 s, and was ended"):
            made.complete([made.push(tmp_path / "hang", "hang")], timeout_s=0.3)
        with pytest.raises(DeviceError, match="cannot be started"):
            made.start([f"{made.folder}/absent"])
    finally:
        made.close()
    assert (tmp_path / "tool").stat().st_mode & 0o777 == 0o644
