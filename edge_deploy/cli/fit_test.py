import json

import pytest

from edge_deploy.cli.main import main

BOARD = """
kind = "microcontroller"
isa = "armv7e-m"
core = "cortex-m4"
cores = 1
ram = "5 KiB"
flash = "64 KiB"
"""


def test_the_command_exits_with_7_where_it_does_not_fit_and_prints_json(data, tmp_path, capsys):
    yardstick = next((data / "models" / "yardstick_cnn_int8").glob("*.tflite"))
    pytest.importorskip("tflite_micro")
    small = tmp_path / "small.toml"
    small.write_text(BOARD)
    with pytest.raises(SystemExit) as ended:
        main(["fit", str(yardstick), "--device", str(small), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert ended.value.code == 7
    assert told["fits"] is False
    assert told["fit"]["needs"][0]["what"] == "flash"
    with pytest.raises(SystemExit) as ended:
        main(["fit", str(yardstick), "--device", "nucleo-h743zi"])
    assert ended.value.code == 0
    assert "the peak" in capsys.readouterr().out


def test_list_devices_tells_what_they_have(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["list", "devices", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert ended.value.code == 0
    flash = {device["name"]: device["flash_bytes"] for device in told["devices"]}
    assert flash["nucleo-f446re"] == 512 << 10
    assert any(form.startswith("qemu:cortex-m") for form in told["device addresses"])
    with pytest.raises(SystemExit) as ended:
        main(["list", "device"])
    assert ended.value.code == 3
    assert "did you mean devices" in capsys.readouterr().err
