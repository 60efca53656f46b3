"""Against the real OpenSSH server on the loopback, with real keys."""

import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest

from device_tests.device_list import connect, find_device
from device_tests.device_session import open_on_device
from device_tests.input_sets import random_input_sets
from device_tests.loopback.sshd import CONFIG, loopback_sshd
from edge_deploy.core.errors import BadInput, DeviceError, MissingExtra
from runtimes.session import open_session


@pytest.fixture
def place(tmp_path):
    (tmp_path / "device").mkdir()
    return tmp_path / "device"


@pytest.fixture
def server(place):
    try:
        with loopback_sshd({"TMPDIR": str(place)}) as made:
            yield made
    except MissingExtra as missing:
        pytest.skip(str(missing))


@pytest.fixture
def mebibytes(tmp_path):
    (tmp_path / "model.bin").write_bytes(os.urandom(4 << 20))
    return tmp_path / "model.bin"


def test_a_model_runs_there_as_it_runs_here_and_nothing_stays_behind(server, place, data):
    model = data / "models/yardstick_cnn_int8/cnn_int8.tflite"
    here = open_session(model, trusted=True)
    sets = random_input_sets(here.signature, seed=3)[:6]
    with open_on_device(model, device=f"ssh:{server.address}") as there:
        assert there.kernels.startswith("ai-edge-litert")
        assert "over ssh, with its own C library" in there.kernels
        assert len(list(place.iterdir())) == 1
        for given, answer in zip(sets, there.run_many(sets), strict=True):
            np.testing.assert_array_equal(answer["output_0"], here.run(given)["output_0"])
    assert list(place.iterdir()) == []


def test_the_device_says_what_it_is(server):
    device = find_device(f"ssh:{server.address}")
    assert device.isa == os.uname().machine
    assert device.ram_bytes > 1 << 20
    assert device.transport == "ssh"


def test_an_unknown_host_key_is_not_accepted(server):
    (server.folder / "known_hosts").write_text("")
    with pytest.raises(DeviceError, match="its host key is unknown here: connect once by hand"):
        find_device(f"ssh:{server.address}")


def test_a_changed_host_key_is_told_apart(server):
    name = (server.folder / "known_hosts").read_text().split()[0]
    (server.folder / "known_hosts").write_text(f"{name} {(server.folder / 'user.pub').read_text()}")
    with pytest.raises(DeviceError, match="its host key is not the known one"):
        find_device(f"ssh:{server.address}")


def test_a_key_that_is_not_let_in_asks_nothing(server):
    (server.folder / "authorized").write_text("")
    with pytest.raises(DeviceError, match="it did not let us in: this needs a key"):
        find_device(f"ssh:{server.address}")


def test_a_device_that_is_off_is_told_at_once(server):
    server.vanish()
    with pytest.raises(DeviceError, match="nothing listens there"):
        find_device(f"ssh:{server.address}")


@pytest.mark.parametrize("address", ["", "-oProxyCommand=true", "user@", "two words"])
def test_what_is_no_address_never_reaches_ssh(address):
    with pytest.raises(BadInput, match=r"must be ssh:user@host\[:port\]"):
        find_device(f"ssh:{address}")


def test_a_device_that_vanishes_in_a_push_is_an_error_and_its_rest_goes_with_the_next_run(place, mebibytes):
    try:
        with loopback_sshd({"TMPDIR": str(place)}, vanishes_after_bytes=1 << 20) as server:
            transport = connect(find_device(f"ssh:{server.address}"))
            with pytest.raises(DeviceError, match=r"model.bin: .*the connection was lost"):
                transport.push(mebibytes, "0/model.bin")
            transport.close()
        (left,) = place.iterdir()
        assert [file.name for file in left.rglob("*") if file.is_file()] in ([], ["model.bin.partial"])
        # As if that run had ended: its process is another one that is gone.
        gone = subprocess.Popen(["true"])
        gone.wait()
        left.rename(left.with_name(left.name.replace(f"-{os.getpid()}-", f"-{gone.pid}-")))
        with loopback_sshd({"TMPDIR": str(place)}) as server:
            transport = connect(find_device(f"ssh:{server.address}"))
            assert len(list(place.iterdir())) == 1
            transport.close()
        assert list(place.iterdir()) == []
    except MissingExtra as missing:
        pytest.skip(str(missing))


def test_a_full_disk_says_how_much_is_needed_and_left(mebibytes):
    with tempfile.TemporaryDirectory(prefix="edge-deploy-small-") as small:
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", small], capture_output=True).returncode:
            pytest.skip("a small file system can be mounted by root only")
        try:
            with loopback_sshd({"TMPDIR": small}) as server:
                transport = connect(find_device(f"ssh:{server.address}"))
                with pytest.raises(DeviceError, match=r"4.19 MB do not fit on ssh:.*no space left in .* left\)"):
                    transport.push(mebibytes, "0/model.bin")
                assert [file for file in Path(small).rglob("*") if file.is_file()] == []
                transport.close()
            assert list(Path(small).iterdir()) == []
        except MissingExtra as missing:
            pytest.skip(str(missing))
        finally:
            subprocess.run(["umount", small], check=True)


def test_a_place_where_programs_are_forbidden_is_not_taken(tmp_path):
    with tempfile.TemporaryDirectory(prefix="edge-deploy-noexec-") as place:
        if subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "noexec,size=1m", "none", place], capture_output=True
        ).returncode:
            pytest.skip("a file system can be mounted by root only")
        try:
            with loopback_sshd({"TMPDIR": place}) as server:
                transport = connect(find_device(f"ssh:{server.address}"))
                try:
                    assert not transport.folder.startswith(place)
                    assert list(Path(place).iterdir()) == []
                finally:
                    transport.close()
        except MissingExtra as missing:
            pytest.skip(str(missing))
        finally:
            subprocess.run(["umount", place], check=True)


def test_the_users_own_configuration_is_left_as_it_was():
    before = os.environ.get(CONFIG)
    try:
        with loopback_sshd():
            assert os.environ[CONFIG] != before
    except MissingExtra as missing:
        pytest.skip(str(missing))
    assert os.environ.get(CONFIG) == before
