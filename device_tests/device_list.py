"""Devices by name: one TOML file each in `device_tests/devices`."""

from __future__ import annotations

import difflib
from pathlib import Path

from edge_deploy.core.device import Device, read_device
from edge_deploy.core.errors import BadInput
from runtimes.probes.machine import read_machine

__all__ = ["device_names", "find_device"]

FOLDER = Path(__file__).parent / "devices"


def device_names() -> tuple[str, ...]:
    """Names of the devices described in `device_tests/devices`."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def find_device(name: str) -> Device:
    """The device of this name, or the one that the TOML file at this path describes.

    Raises:
        BadInput: No such device, or its description is wrong.
    """
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if path.parent == FOLDER and path.stem not in device_names():
        close = difflib.get_close_matches(name, device_names(), n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(device_names())}."
        raise BadInput(f"--device {name}: unknown; {hint}")
    return read_device(path, detected=_this_machine() if path.stem == "host" else None)


def _this_machine() -> dict[str, object]:
    machine = read_machine()
    return {"isa": machine.isa, "cores": machine.cores, "ram_bytes": machine.ram_bytes}
