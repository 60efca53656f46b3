"""The real adb client against a device end of our own: protocol tests, never a measurement of a phone."""

import os
import subprocess

import numpy as np
import pytest

from device_tests.benchmark import benchmark
from device_tests.device_list import connect, find_device
from device_tests.device_session import open_on_device
from device_tests.input_sets import random_input_sets
from device_tests.loopback.phone import loopback_phone
from edge_deploy.core.errors import BadInput, DeviceError, MissingExtra, ToolchainError
from runtimes.runners.bundle import runner_bundle
from runtimes.session import open_session


@pytest.fixture
def phone_with():
    from contextlib import ExitStack

    with ExitStack() as stack:

        def start(**weakness):
            try:
                return stack.enter_context(loopback_phone(**weakness))
            except MissingExtra as missing:
                pytest.skip(str(missing))

        yield start


@pytest.fixture
def mebibytes(tmp_path):
    (tmp_path / "model.bin").write_bytes(os.urandom(4 << 20))
    return tmp_path / "model.bin"


def test_a_phone_without_our_c_library_and_without_python_measures_a_model(phone_with, data):
    phone = phone_with()
    names = [file.name for file in phone.root.rglob("*") if "/proc/" not in f"{file}/"]
    assert not [name for name in names if name.startswith(("libc.", "ld-", "python"))]
    model = data / "models/yardstick_cnn_int8/cnn_int8.tflite"
    (report,) = benchmark([model], device=f"adb:{phone.serial}", runs=6, rounds=6, min_seconds=0)
    assert report.device.kind == "phone"
    assert "Android, started through a loader and C library of its own" in report.conditions.kernels
    assert any("not by the runtime's Android package" in note for note in report.notes)
    assert all(value > 0 for values in report.rounds_s for value in values)
    assert report.memory_peak.anonymous_bytes > report.memory_base.anonymous_bytes
    assert phone.left_behind() == []


def test_outputs_are_those_of_this_machine(phone_with, data, tmp_path):
    phone = phone_with()
    model = data / "models/yardstick_cnn_int8/cnn_int8.tflite"
    here = open_session(model, trusted=True)
    sets = random_input_sets(here.signature, seed=1)[:4]
    np.savez(tmp_path / "in.npz", **{name: np.stack([each[name] for each in sets]) for name in sets[0]})
    transport = connect(find_device(f"adb:{phone.serial}"))
    try:
        there = transport.push(model, "0/cnn_int8.tflite")
        given = transport.push(tmp_path / "in.npz", "in.npz")
        worker = transport.run("device_tests.worker")
        load = {"backend": None, "signature": None, "threads": 1, "kernels": "default", "seed": 0, "inputs": None}
        worker.ask({"do": "load", "path": there, **load, "source": []}, timeout_s=120)
        assert worker.ask({"do": "infer", "inputs": given, "outputs": f"{transport.folder}/out.npz"}, timeout_s=60) == {
            "samples": 4
        }
        transport.pull("out.npz", tmp_path / "out.npz")
        worker.close()
    finally:
        transport.close()
    with np.load(tmp_path / "out.npz") as archive:
        for given, answer in zip(sets, archive["output_0"], strict=True):
            np.testing.assert_array_equal(answer, here.run(given)["output_0"])
    assert phone.left_behind() == []


def test_an_arm_phone_runs_the_arm_runner_and_its_outputs_are_those_of_this_machine(phone_with, data):
    # Its shell is this machine's busybox; the pushed loader, C library, runner and kernels are ARM's, under qemu.
    try:
        runner_bundle("litert", "aarch64")
    except (MissingExtra, ToolchainError) as missing:
        pytest.skip(str(missing))
    phone = phone_with(core="cortex-a76")
    model = data / "models/yardstick_cnn_int8/cnn_int8.tflite"
    here = open_session(model, trusted=True)
    sets = random_input_sets(here.signature, seed=1)[:8]
    with open_on_device(model, device=f"adb:{phone.serial}") as there:
        answers = there.run_many(sets)
        assert "Android, started through a loader and C library of its own" in there.kernels
    for given, answer in zip(sets, answers, strict=True):
        np.testing.assert_array_equal(answer["output_0"], here.run(given)["output_0"])
    (report,) = benchmark([model], device=f"adb:{phone.serial}", runs=6, rounds=6, min_seconds=0)
    assert (report.device.isa, report.machine.isa) == ("aarch64", "aarch64")
    assert "asimddp" in report.machine.features
    names = [file.name for file in phone.root.rglob("*") if "/proc/" not in f"{file}/"]
    assert not [name for name in names if name.startswith(("libc.", "ld-", "python"))]
    assert phone.left_behind() == []


def test_full_storage_is_told_and_nothing_stays_behind(phone_with, mebibytes):
    phone = phone_with(room_bytes=1 << 20)
    transport = connect(find_device(f"adb:{phone.serial}"))
    with pytest.raises(DeviceError, match=r"4.19 MB do not fit on adb:.*: no space left"):
        transport.push(mebibytes, "0/model.bin")
    assert not list(phone.root.glob("data/local/tmp/*/**/model.bin*"))
    transport.close()
    assert phone.left_behind() == []


def test_a_phone_that_is_unplugged_in_a_push_is_an_error(phone_with, mebibytes):
    phone = phone_with(vanishes_after_bytes=1 << 20)
    transport = connect(find_device(f"adb:{phone.serial}"))
    with pytest.raises(DeviceError, match=r"model.bin.*adb:127"):
        transport.push(mebibytes, "0/model.bin")
    transport.close()


def test_a_serial_number_that_adb_does_not_see_is_told(phone_with):
    phone_with()
    with pytest.raises(DeviceError, match="adb does not see it; `adb devices` lists"):
        find_device("adb:ZY22ABCDEF")


def test_what_is_no_serial_number_never_reaches_adb():
    with pytest.raises((BadInput, MissingExtra), match=r"must be adb:serial|apt-get install adb"):
        find_device("adb:-H example")


def test_a_program_that_hangs_is_ended_with_its_files(phone_with, tmp_path):
    phone = phone_with()
    (tmp_path / "hang").write_text("#!/system/bin/sh\nsleep 300\n")
    transport = connect(find_device(f"adb:{phone.serial}"))
    path = transport.push(tmp_path / "hang", "hang")
    worker = transport.start([path])
    with pytest.raises(DeviceError, match=r"native runner on adb:.* gave no answer within 0 s"):
        worker.ask({"do": "state"}, timeout_s=0.3)
    number = (phone.root / transport.folder.lstrip("/") / "pids").read_text().strip()
    worker.close()
    transport.close()
    assert phone.left_behind() == []
    assert subprocess.run(["kill", "-0", number], capture_output=True).returncode != 0
