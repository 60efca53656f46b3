import pytest

from edge_deploy.core.device import Device, read_device
from edge_deploy.core.errors import BadInput
from edge_deploy.core.serde import from_json, to_json

BOARD = """
kind = "microcontroller"
isa = "armv7e-m"
cores = 1
ram = "256 KiB"
flash = "1 MiB"
runtimes = ["tflite_micro"]
transport = "qemu"
"""


def test_a_device_is_named_after_its_file_and_counts_bytes(tmp_path):
    (tmp_path / "nucleo.toml").write_text(BOARD)
    device = read_device(tmp_path / "nucleo.toml")
    assert (device.name, device.ram_bytes, device.flash_bytes) == ("nucleo", 262_144, 1_048_576)
    assert from_json(Device, to_json(device)) == device


def test_all_wrong_keys_are_named_at_once(tmp_path):
    (tmp_path / "x.toml").write_text(BOARD.replace("cores", "coers").replace("isa", "#"))
    with pytest.raises(BadInput) as caught:
        read_device(tmp_path / "x.toml")
    assert "did you mean cores" in str(caught.value)
    assert "isa: missing" in str(caught.value)


def test_a_misspelt_amount_is_answered_with_the_key_as_people_write_it(tmp_path):
    (tmp_path / "x.toml").write_text(BOARD.replace("ram =", "rma =") + 'flsh = "1 MiB"\nclokc = "1 GHz"\n')
    with pytest.raises(BadInput) as caught:
        read_device(tmp_path / "x.toml")
    for meant in ("rma: unknown key; did you mean ram?", "did you mean flash?", "did you mean clock?"):
        assert meant in str(caught.value)


def test_what_the_file_leaves_out_can_be_detected_and_the_file_wins(tmp_path):
    (tmp_path / "host.toml").write_text('kind = "host"\ncores = 3\n')
    device = read_device(tmp_path / "host.toml", detected={"isa": "x86_64", "cores": 2, "ram_bytes": 5})
    assert (device.isa, device.cores, device.ram_bytes, device.flash_bytes) == ("x86_64", 3, 5, None)


def test_a_broken_file_and_impossible_sizes_are_refused(tmp_path):
    (tmp_path / "a.toml").write_text("kind = ")
    (tmp_path / "b.toml").write_text(BOARD.replace("cores = 1", "cores = 0").replace("256 KiB", "0"))
    with pytest.raises(BadInput, match="not a device description"):
        read_device(tmp_path / "a.toml")
    with pytest.raises(BadInput) as caught:
        read_device(tmp_path / "b.toml")
    assert len(caught.value.problems) == 2
