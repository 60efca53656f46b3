import pytest

from device_tests.device_list import address_forms, connect, device_names, find_device
from edge_deploy.core.errors import BadInput

BOARD = """
kind = "microcontroller"
isa = "armv7e-m"
core = "cortex-m4"
cores = 1
ram = "256 KiB"
ram_block = "192 KiB"
flash = "1 MiB"
clock = "180 MHz"
transport = "serial"
"""


@pytest.fixture
def board(tmp_path):
    (tmp_path / "nucleo.toml").write_text(BOARD.replace('"serial"', '"qemu-board"'))
    return str(tmp_path / "nucleo.toml")


def test_the_host_is_this_machine():
    host = find_device("host")
    assert (host.kind, host.transport, host.address) == ("host", "local", "")
    assert host.cores >= 1


def test_an_emulated_board_is_a_device_without_a_file():
    found = find_device("qemu:cortex-m4")
    assert (found.name, found.kind, found.core, found.isa) == ("qemu:cortex-m4", "emulated", "cortex-m4", "armv7e-m")
    assert (found.transport, found.address) == ("qemu-board", "cortex-m4")
    assert "qemu:cortex-m3|m4|m7|m33|m55" in address_forms()


def test_a_described_device_is_emulated_with_its_own_memory(board):
    found = find_device(f"{board}@qemu:cortex-m7")
    assert (found.kind, found.transport, found.address) == ("emulated", "qemu-board", "cortex-m7")
    assert (found.flash_bytes, found.ram_bytes, found.arena_room_bytes) == (1 << 20, 256 << 10, 192 << 10)
    assert found.clock_hz == 180e6
    assert find_device(board).kind == "microcontroller"


def test_another_instruction_set_than_the_devices_is_not_emulated_in_its_name(board):
    with pytest.raises(BadInput, match=r"armv7e-m .*emulates armv8\.1-m"):
        find_device(f"{board}@qemu:cortex-m55")


def test_wrong_device_strings_are_refused_with_what_would_be_right(board):
    for text, right in (
        ("hots", "did you mean host"),
        ("qemu:cortex-m4f", "did you mean cortex-m4"),
        ("telnet:box", "known: .*qemu:"),
        (f"{board}@somewhere", "is no address"),
        ("nobody@qemu:cortex-m4", "--device nobody: unknown"),
    ):
        with pytest.raises(BadInput, match=right):
            find_device(text)


def test_a_device_file_with_an_unknown_transport_is_refused(tmp_path):
    (tmp_path / "x.toml").write_text(BOARD.replace('"serial"', '"qemu-bord"'))
    with pytest.raises(BadInput, match="did you mean qemu-board"):
        find_device(str(tmp_path / "x.toml"))


def test_a_dozen_real_devices_of_every_kind_are_described():
    kinds = [find_device(name).kind for name in device_names()]
    assert {"phone", "single-board", "microcontroller"} <= set(kinds)
    assert len(kinds) > 12


def test_a_described_microcontroller_is_emulated_by_its_own_core():
    found = find_device("nucleo-f446re@qemu:cortex-m4")
    assert (found.flash_bytes, found.ram_bytes, found.kind) == (512 << 10, 128 << 10, "emulated")
    with pytest.raises(BadInput, match="nucleo-f446re@qemu:cortex-m4 emulates it"):
        connect(find_device("nucleo-f446re"))


def test_a_device_that_lies_nowhere_yet_is_asked_for_its_address(board):
    with pytest.raises(BadInput, match=r"nothing says where; give --device nucleo@qemu:.* or a \.toml"):
        connect(find_device(board))


@pytest.mark.parametrize("name", device_names())
def test_every_shipped_description_is_whole(name):
    device = find_device(name)
    assert device.name == name
    if device.kind != "host":
        assert device.source and device.core and device.clock_hz and device.runtimes
        assert device.flash_bytes or device.kind != "microcontroller" or device.npu
        with pytest.raises(BadInput, match=f"{name}@"):
            connect(device)
