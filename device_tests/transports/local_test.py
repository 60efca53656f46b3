import hashlib
import sys
from pathlib import Path

import pytest

from device_tests.transports.local import LocalChannel
from edge_deploy.core import registry
from edge_deploy.core.errors import BadInput, DeviceError, ToolchainError

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


# The contract of every transport that reaches this machine.
@pytest.fixture(params=["local"])
def transport(request):
    made = registry.load("device_tests.transports", request.param).connect()
    yield made
    made.close()


def test_a_pushed_file_comes_back_unchanged(transport, tmp_path):
    (tmp_path / "model.bin").write_bytes(b"\x00weights\xff" * 1000)
    transport.push(tmp_path / "model.bin", "0/model.bin")
    transport.pull("0/model.bin", tmp_path / "back.bin")
    assert (tmp_path / "back.bin").read_bytes() == (tmp_path / "model.bin").read_bytes()


def test_a_symbolic_link_is_pushed_as_the_file_it_names(transport, tmp_path):
    (tmp_path / "model.bin").write_bytes(b"abc")
    (tmp_path / "link.bin").symlink_to("model.bin")
    transport.push(tmp_path / "link.bin", "0/model.bin")
    transport.pull("0/model.bin", tmp_path / "back.bin")
    assert (tmp_path / "back.bin").read_bytes() == b"abc"


def test_a_file_with_another_checksum_is_refused(transport, tmp_path):
    (tmp_path / "model.bin").write_bytes(b"damaged")
    with pytest.raises(DeviceError, match=r"must be .*the file was changed"):
        transport.push(tmp_path / "model.bin", "m", sha256=hashlib.sha256(b"whole").hexdigest())


def test_missing_files_and_paths_out_of_the_folder_are_refused(transport, tmp_path):
    with pytest.raises(DeviceError, match="could not be pushed"):
        transport.push(tmp_path / "absent", "m")
    with pytest.raises(DeviceError, match="could not be pulled"):
        transport.pull("absent", tmp_path / "x")
    with pytest.raises(DeviceError, match="inside the run's folder"):
        transport.pull("../../etc/hostname", tmp_path / "x")


def test_closing_leaves_the_pushed_original_and_removes_the_copy(tmp_path):
    made = registry.load("device_tests.transports", "local").connect()
    (tmp_path / "model.bin").write_bytes(b"abc")
    pushed = made.push(tmp_path / "model.bin", "model.bin")
    made.close()
    assert (tmp_path / "model.bin").read_bytes() == b"abc"
    assert not Path(pushed).exists()


def test_a_worker_started_by_a_transport_answers(transport):
    worker = transport.run("device_tests.worker")
    try:
        assert worker.ask({"do": "state"}, timeout_s=60)["peak_rss_bytes"] >= 0
        with pytest.raises(BadInput, match="must be one of load, warm"):
            worker.ask({"do": "dance"}, timeout_s=60)
        with pytest.raises(ToolchainError, match="TypeError"):
            worker.ask({"do": "load", "wrong": 1}, timeout_s=60)
    finally:
        worker.close()


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
