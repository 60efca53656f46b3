"""Whether models fit devices: every number is held against the one that was built, planned or counted elsewhere."""

import shutil

import pytest

from edge_deploy.api.convert import convert
from edge_deploy.api.fit import fit
from edge_deploy.api.request import convert_request
from edge_deploy.core.errors import BadInput
from runtimes.formats.c_source import arena_bytes

BOARD = 'kind = "microcontroller"\nisa = "armv7e-m"\ncore = "{core}"\ncores = 1\nram = "{ram}"\nflash = "{flash}"\n'


@pytest.fixture(scope="module")
def resnet(data):
    pytest.importorskip("tflite_micro")
    return data / "models" / "mlperf_tiny_ic_resnet8" / "pretrainedResnet_quant.tflite"


@pytest.fixture(scope="module")
def yardstick(data):
    return next((data / "models" / "yardstick_cnn_int8").glob("*.tflite"))


@pytest.fixture(scope="module")
def project(yardstick, tmp_path_factory):
    request = convert_request(str(yardstick), to=["c"], precision=["int8"], out=tmp_path_factory.mktemp("c") / "out")
    return convert(request).folder / "c-int8"


def board(folder, *, ram, flash, core="cortex-m4"):
    file = folder / f"{ram}-{flash}-{core}.toml".replace(" ", "")
    file.write_text(BOARD.format(ram=ram, flash=flash, core=core))
    return str(file)


def test_a_file_fits_where_its_size_and_the_arena_of_tflm_do(resnet, tmp_path):
    report = fit(resnet, device="nucleo-f446re")
    flash, ram = report.needs
    assert report.fits and report.footprint.form == "TensorFlow Lite Micro"
    assert flash.amount.bytes == resnet.stat().st_size
    assert (ram.amount.provenance, "x86-64 reference kernels" in ram.amount.how) == ("measured", True)
    stage = report.footprint.stages[report.footprint.peak]
    # The two values of the widest residual connection and the third that is being made: 3 x 32 x 32 x 16.
    assert (stage.op, stage.live_bytes) == ("CONV_2D", 49152)


def test_what_does_not_fit_is_told_with_what_would(resnet, tmp_path):
    report = fit(resnet, device=board(tmp_path, ram="48 KiB", flash="96 KB"))
    assert [need.fits for need in report.needs] == [False, False]
    others = {each.name: each for each in report.alternatives}
    assert others["generated C"].ram_bytes < report.needs[1].amount.bytes
    assert others["generated C"].fits
    assert others["INT4 weights"].flash_bytes < report.needs[0].amount.bytes
    cut = next(each for name, each in others.items() if name.startswith("cut behind"))
    assert cut.fits and "bytes sent on" in cut.how
    assert others["device nucleo-f446re"].fits
    assert {each.provenance for each in report.alternatives} == {"estimated"}


def test_a_c_project_counts_the_linked_program_and_the_stack(project, tmp_path):
    for program in ("arm-none-eabi-gcc", "qemu-system-arm", "cc"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (make packages)")
    report = fit(project, device=board(tmp_path, ram="16 KiB", flash="64 KiB"))
    flash, ram = report.needs
    assert (flash.amount.provenance, ram.amount.provenance) == ("measured", "emulated")
    arena = arena_bytes(project / "model.c")
    assert arena < ram.amount.bytes < arena + 2000
    assert flash.amount.bytes > 17_970  # its constants alone
    assert not fit(project, device=board(tmp_path, ram="5 KiB", flash="64 KiB")).fits


def test_a_core_that_is_not_emulated_gets_estimates_that_say_so(project, tmp_path):
    report = fit(project, device=board(tmp_path, ram="16 KiB", flash="64 KiB", core="xtensa-lx7"))
    assert report.needs[0].amount.provenance == "estimated"
    assert "no xtensa-lx7 is emulated here" in report.needs[0].amount.how


def test_a_smaller_input_is_proposed_where_values_are_too_large(yardstick, tmp_path):
    report = fit(yardstick, device=board(tmp_path, ram="5 KiB", flash="64 KiB"))
    names = [each.name for each in report.alternatives]
    assert any("input " in name for name in names)
    assert not report.fits


def test_an_npu_is_estimated_by_its_compiler(yardstick):
    pytest.importorskip("ethosu")
    found = fit(yardstick, device="corstone-300-u55-128").npu
    assert (found.accelerator, found.provenance, found.cpu_operators) == ("ethos-u55-128", "estimated", 0)
    assert found.cycles > 10_000
    assert (found.clock_hz, found.seconds) == (32e6, found.cycles / 32e6)  # the board's, not the compiler's 500 MHz
    assert sum(layer.macs for layer in found.layers) > 900_000
    with pytest.raises(BadInput, match="did you mean ethos-u55-128"):
        fit(yardstick, device="corstone-300-u55-128", npu="ethos-u55-127")


def test_a_model_that_its_interpreter_refuses_does_not_fit(data):
    pytest.importorskip("tflite_micro")
    path = data / "models" / "imagenet_coral_int8_tflite" / "mobilenet_v1_0.25_128_quant.tflite"
    report = fit(path, device="nucleo-l4r5zi")
    assert all(need.fits for need in report.needs)
    assert "CONV_2D (number 0) failed to prepare" in report.footprint.refused
    assert not report.fits


def test_a_phone_counts_no_flash(resnet):
    report = fit(resnet, device="pixel-8")
    assert [need.what for need in report.needs] == ["RAM"]
    assert report.fits and report.footprint.form == "LiteRT"


def test_wrong_files_are_refused(tmp_path):
    (tmp_path / "x.tflite").write_bytes(b"nonsense")
    with pytest.raises(BadInput):
        fit(tmp_path / "x.tflite", device="nucleo-f446re")
    with pytest.raises(BadInput, match="is no artifact"):
        fit(tmp_path, device="nucleo-f446re")
