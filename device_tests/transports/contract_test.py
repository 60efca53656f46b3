"""The contract of every transport that the folder holds."""

import hashlib
import inspect
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from device_tests.contracts import Transport, TransportModule
from device_tests.device_list import connect, find_device
from device_tests.loopback.phone import loopback_phone
from device_tests.loopback.serial_board import loopback_board
from device_tests.loopback.sshd import loopback_sshd
from edge_deploy.core import registry
from edge_deploy.core.errors import BadInput, DeviceError, MissingExtra, ToolchainError

# What each transport is tried with: a context manager that gives the device string. A new transport adds itself here.
TRIALS = {
    "local": lambda: nullcontext("host"),
    "qemu-board": lambda: nullcontext("qemu:cortex-m4"),
    "qemu-arm64": lambda: nullcontext("qemu:arm64-cortex-a53"),
    "ssh": lambda: over_ssh(),
    "adb": lambda: over_adb(),
    "serial": lambda: over_serial(),
}
HEADER = """
#define MODEL_INPUTS 1
#define MODEL_OUTPUTS 1
#include <stdint.h>
/* input 0: x [1, 4] */
typedef int8_t model_input_0_t;
/* output 0: y [1, 4] */
typedef int8_t model_output_0_t;
void *model_input(int index);
const void *model_output(int index);
int model_invoke(void);
"""
CODE = """
#include "model.h"
static int8_t x[4];
void *model_input(int index) { return index ? 0 : x; }
const void *model_output(int index) { return index ? 0 : x; }
int model_invoke(void) { return 0; }
"""
NAMES = registry.names("device_tests.transports")


@contextmanager
def over_ssh():
    with loopback_sshd() as server:
        yield f"ssh:{server.address}"


@contextmanager
def over_adb():
    with loopback_phone() as phone:
        yield f"adb:{phone.serial}"


@contextmanager
def over_serial():
    with TemporaryDirectory() as folder:
        Path(folder, "model.h").write_text(HEADER)
        Path(folder, "model.c").write_text(CODE)
        with loopback_board(Path(folder)) as (port, _):
            yield f"serial:{port}"


@pytest.fixture(scope="module", params=NAMES)
def address(request):
    with ExitStack() as stack:
        try:
            yield stack.enter_context(TRIALS[request.param]())
        except MissingExtra as missing:
            pytest.skip(str(missing))


@pytest.fixture
def transport(address):
    try:
        made = connect(find_device(address))
    except MissingExtra as missing:
        pytest.skip(str(missing))
    yield made
    made.close()


@pytest.mark.parametrize("name", NAMES)
def test_a_module_offers_what_the_contract_says(name):
    module = registry.load("device_tests.transports", name)
    for attribute in TransportModule.__annotations__:
        assert type(getattr(module, attribute)).__name__ == TransportModule.__annotations__[attribute]
    for function in ("describe", "connect"):
        want = inspect.signature(getattr(TransportModule, function)).parameters
        assert list(inspect.signature(getattr(module, function)).parameters) == list(want)[1:]


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


def test_it_is_called_as_the_contract_says(transport):
    for method in ("push", "run", "pull", "close"):
        have = inspect.signature(getattr(type(transport), method)).parameters
        want = inspect.signature(getattr(Transport, method)).parameters
        assert [(p.name, p.kind) for p in have.values()] == [(p.name, p.kind) for p in want.values()], method


def test_closing_twice_is_fine(transport):
    transport.close()
    transport.close()
