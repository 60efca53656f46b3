"""Generated C measured on emulated boards, by the same report as everything else."""

import math
import shutil

import numpy as np
import pytest

from device_tests.benchmark import read_subject
from device_tests.boards.board import BOARDS
from device_tests.boards.emulator import run_on_board
from device_tests.compare import compare
from device_tests.counting import count_instructions
from device_tests.device_list import connect, counts_instructions, find_device
from device_tests.reference import differences, infer_on, reference_answers, signature_of
from edge_deploy.api.benchmark import benchmark_and_keep
from edge_deploy.api.convert import convert
from edge_deploy.api.request import convert_request
from edge_deploy.api.verify import verify
from edge_deploy.core.benchmark import BenchmarkReport, run_seconds
from edge_deploy.core.errors import BadInput, DeviceError, Unsupported
from edge_deploy.core.serde import from_json, to_json
from edge_deploy.report import write_report

SMALL_BOARD = """
kind = "microcontroller"
isa = "armv7e-m"
core = "cortex-m4"
cores = 1
ram = "{ram}"
flash = "{flash}"
"""


@pytest.fixture(scope="module")
def artifact(data, tmp_path_factory):
    for program in ("arm-none-eabi-gcc", "qemu-system-arm", "cc"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (make packages)")
    (source,) = (data / "models" / "yardstick_cnn_int8").glob("*.tflite")
    request = convert_request(str(source), to=["c"], precision=["int8"], out=tmp_path_factory.mktemp("c") / "out")
    return convert(request).folder / "c-int8"


def test_instructions_are_counted_and_every_bit_is_that_of_the_reference_kernels(artifact):
    first, again = (count_instructions([artifact], device="qemu:cortex-m4", samples=3)[0] for _ in range(2))
    assert first.provenance == "emulated"
    assert first.counted.instructions == again.counted.instructions > 1e5
    assert first.counted.differing_bits == 0 < first.counted.compared_bits
    assert "reference" in first.counted.reference
    assert first.counted.flash_bytes > first.counted.ram_bytes > 1000
    assert from_json(BenchmarkReport, to_json(first), where="report") == first
    with pytest.raises(BadInput, match="counted instructions, and has no seconds"):
        run_seconds(first)


def test_a_described_devices_flash_and_ram_are_the_linkers(artifact, tmp_path):
    for name, ram, flash in (
        ("fits", "16 KiB", "64 KiB"),
        ("small_ram", "2 KiB", "64 KiB"),
        ("small", "1 MiB", "9 KB"),
    ):
        (tmp_path / f"{name}.toml").write_text(SMALL_BOARD.format(ram=ram, flash=flash))
    on = {name: f"{tmp_path}/{name}.toml@qemu:cortex-m4" for name in ("fits", "small_ram", "small")}
    (report,) = count_instructions([artifact], device=on["fits"], samples=1)
    assert report.device.ram_bytes == 16 << 10
    with pytest.raises(DeviceError, match="too many for 2048 bytes of RAM"):
        count_instructions([artifact], device=on["small_ram"], samples=1)
    with pytest.raises(DeviceError, match="too many for 9000 bytes of FLASH"):
        count_instructions([artifact], device=on["small"], samples=1)


def test_a_board_counts_and_this_machine_takes_time(tmp_path):
    (tmp_path / "x.toml").write_text(SMALL_BOARD.format(ram="1 KiB", flash="1 KiB"))
    assert counts_instructions("qemu:cortex-m55")
    assert counts_instructions(f"{tmp_path}/x.toml@qemu:cortex-m4")
    assert not counts_instructions("host")
    assert not counts_instructions(f"{tmp_path}/x.toml")


def test_the_same_samples_give_the_same_values_on_this_machine(artifact):
    subject = read_subject(artifact)
    signature = signature_of(subject)
    (info,) = signature.inputs
    feeds = {info.name: np.arange(2 * math.prod(info.shape), dtype=np.int64).astype(np.int8).reshape(2, *info.shape)}
    transport = connect(find_device("host"))
    try:
        got = infer_on(transport, subject, feeds)
    finally:
        transport.close()
    found = differences(got.outputs, reference_answers(subject, feeds).outputs)
    assert [(each.differing, each.largest) for each in found] == [(0, 0.0)]


def test_differences_count_values_bits_and_the_largest_step():
    (found,) = differences({"y": np.array([1, 2, 7], np.int8)}, {"y": np.array([1, 3, 0], np.int8)})
    assert (found.values, found.differing, found.differing_bits, found.largest) == (3, 2, 4, 7.0)


def test_counts_are_kept_beside_the_model_and_the_report_page_shows_them_as_emulated(artifact):
    (report,) = benchmark_and_keep([artifact], device="qemu:cortex-m4")
    page = write_report(artifact.parent).read_text(encoding="utf-8")
    assert "Emulated boards" in page
    assert f"{report.counted.instructions:,.0f}" in page
    with pytest.raises(Unsupported, match="--threads 2"):
        benchmark_and_keep([artifact], device="qemu:cortex-m4", threads=2)


def test_counts_are_compared_exactly(artifact):
    reports = count_instructions([artifact, artifact], device="qemu:cortex-m4", samples=1)
    (other,) = count_instructions([artifact], device="qemu:cortex-m55", samples=1)
    same = compare(reports[1], reports[0])
    assert (same.ratio.median, same.verdict()) == (1.0, "difference not resolved")
    assert "1.0000x the instructions" in same.measured()
    with pytest.raises(BadInput, match="other device"):
        compare(other, reports[0])
    faster = compare(other, reports[0], allow=("device", "machine", "runtime"))
    assert (faster.verdict(), faster.ratio.low) == ("faster", faster.ratio.high)


@pytest.mark.parametrize("seed", (301, 302, 303))
def test_random_nets_are_bit_exact_with_dsp_and_vector_instructions(seed, tmp_path):
    pytest.importorskip("ai_edge_litert")
    for program in ("arm-none-eabi-gcc", "qemu-system-arm", "cc"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (make packages)")
    from converters.c.random_nets_test import RandomNet, written

    (tmp_path / "c").mkdir()
    signature, inputs, wanted = written(RandomNet(seed).write(tmp_path / "net.tflite"), tmp_path / "c")
    feeds = {info.name: inputs[place] for place, info in enumerate(signature.inputs)}
    for board in ("cortex-m4", "cortex-m55"):
        got = run_on_board(tmp_path / "c", signature, BOARDS[board], feeds).outputs
        assert [name for name in wanted if got[name].tobytes() != wanted[name].tobytes()] == []


@pytest.mark.parametrize("family", ("auto_encoder", "deep_convolutions", "legacy", "resizes"))
def test_kernels_for_small_arenas_old_files_and_enlarging_are_bit_exact_on_a_board(family, tmp_path):
    pytest.importorskip("ai_edge_litert")
    for program in ("arm-none-eabi-gcc", "qemu-system-arm", "cc"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (make packages)")
    from converters.c import frugal_test, kernels_test
    from converters.c.random_nets_test import written

    net = kernels_test.Net(kernels_test.ByHand(), np.random.default_rng(5), {}, {})
    if family in kernels_test.FAMILIES:
        kernels_test.FAMILIES[family](net)
    else:
        getattr(frugal_test, family)(net, 8)
    net.hand.signature("main", dict(net.inputs), dict(net.outputs))
    (tmp_path / "c").mkdir()
    signature, inputs, wanted = written(net.hand.write(tmp_path / "net.tflite"), tmp_path / "c")
    feeds = {info.name: inputs[place] for place, info in enumerate(signature.inputs)}
    got = run_on_board(tmp_path / "c", signature, BOARDS["cortex-m4"], feeds).outputs
    assert [name for name in wanted if got[name].tobytes() != wanted[name].tobytes()] == []


def test_an_artifact_is_verified_on_a_board(artifact):
    _, result = verify(artifact, device="qemu:cortex-m55")
    assert [(each.threads, each.snr_db) for each in result.comparisons] == [(1, 999.0)]
    assert "emulated cortex-m55" in result.comparisons[0].kernels
