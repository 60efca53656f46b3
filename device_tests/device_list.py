"""What `--device` says becomes a `Device`, here and nowhere else; and a device becomes a transport.

| string | device |
|---|---|
| `host` | this machine |
| `NAME` | `device_tests/devices/NAME.toml` |
| `FILE.toml` | a description of the user's own |
| `qemu:cortex-m4`, `qemu:arm64-cortex-a76` | emulated |
| `ssh:user@host`, `adb:serial`, `serial:/dev/ttyACM0` | whatever answers there |
| `NAME@ssh:user@host`, `NAME@qemu:cortex-m4` | a described device, reached or emulated there |
"""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path
from typing import cast

from device_tests.contracts import Transport, TransportModule
from edge_deploy.core import registry
from edge_deploy.core.device import Device, read_device
from edge_deploy.core.errors import BadInput
from runtimes.probes.machine import read_machine

__all__ = ["address_forms", "connect", "counts_instructions", "device_names", "find_device"]

FOLDER = Path(__file__).parent / "devices"
TRANSPORTS = "device_tests.transports"


def device_names() -> tuple[str, ...]:
    """Names of the devices described in `device_tests/devices`."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def address_forms() -> tuple[str, ...]:
    """How devices are addressed that have no file, e.g. "ssh:user@host"."""
    return tuple(module.PREFIX + module.ADDRESS for _, module in _transports() if module.PREFIX)


def find_device(text: str) -> Device:
    """The device that a `--device` option means; see the table above.

    Raises:
        BadInput: No such device, or its description is wrong.
        DeviceError: An addressed device does not answer.
    """
    name, at, there = text.partition("@")
    if at and ":" not in name:
        return _reached(_described(name), there, text)
    found = _transport_of(text)
    if found is not None:
        return found[1].describe(text.removeprefix(found[1].PREFIX))
    return _described(text)


def counts_instructions(text: str) -> bool:
    """Whether the device of this string counts instructions in place of time; asks no device.

    Raises:
        BadInput: No such device, or its description is wrong.
    """
    name, at, there = text.partition("@")
    found = _transport_of(there if at and ":" not in name else text)
    if found is None:
        transport = _described(text).transport
        module: object = registry.load(TRANSPORTS, transport) if transport else None
    else:
        module = found[1]
    return bool(getattr(module, "COUNTS_INSTRUCTIONS", False))


def connect(device: Device) -> Transport:
    """A transport to the device.

    Raises:
        BadInput: Nothing says where the device is.
        DeviceError: It cannot be reached.
    """
    emulate = f"; {device.name}@qemu:{device.core} emulates it." if _is_emulated_core(device.core) else "."
    if not device.transport:
        forms = ", ".join(device.name + "@" + form for form in address_forms())
        raise BadInput(f"--device {device.name}: nothing says how it is reached; give one of {forms}{emulate}")
    module = cast(TransportModule, registry.load(TRANSPORTS, device.transport))
    if not device.address and module.ADDRESS and not module.ADDRESS.startswith("["):
        raise BadInput(
            f"--device {device.name}: reached by {device.transport}, and nothing says where; give --device "
            f"{device.name}@{module.PREFIX}{module.ADDRESS}, or a .toml file with address = {module.ADDRESS!r}{emulate}"
        )
    return module.connect(device)


def _described(name: str) -> Device:
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if path.parent == FOLDER and path.stem not in device_names():
        known = (*device_names(), *address_forms())
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}, or a .toml file."
        raise BadInput(f"--device {name}: unknown; {hint}")
    device = read_device(path, detected=_this_machine() if path.stem == "host" else None)
    if device.transport and device.transport not in registry.names(TRANSPORTS):
        close = difflib.get_close_matches(device.transport, registry.names(TRANSPORTS), n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(registry.names(TRANSPORTS))}."
        raise BadInput(f"{path}: transport = {device.transport!r}: unknown; {hint}")
    return device


def _reached(device: Device, there: str, text: str) -> Device:
    found = _transport_of(there)
    if found is None:
        raise BadInput(f"--device {text}: {there!r} is no address; must be one of {', '.join(address_forms())}.")
    name, module = found
    address = there.removeprefix(module.PREFIX)
    if not module.EMULATED:
        return replace(device, transport=name, address=address)
    emulated = module.describe(address)
    if emulated.isa != device.isa:
        raise BadInput(
            f"--device {text}: {device.name} has instruction set {device.isa} ({device.core or 'core unknown'}), "
            f"{there} emulates {emulated.isa}; choose an emulated core that runs {device.isa}."
        )
    return replace(device, name=text, kind="emulated", transport=name, address=address)


def _transports() -> tuple[tuple[str, TransportModule], ...]:
    return tuple((name, cast(TransportModule, registry.load(TRANSPORTS, name))) for name in registry.names(TRANSPORTS))


def _transport_of(text: str) -> tuple[str, TransportModule] | None:
    """The transport whose prefix the string has.

    Raises:
        BadInput: It has a colon and yet no known prefix.
    """
    fitting = [(name, module) for name, module in _transports() if module.PREFIX and text.startswith(module.PREFIX)]
    if fitting:
        return max(fitting, key=lambda found: len(found[1].PREFIX))
    if ":" in text and not text.endswith(".toml"):
        close = difflib.get_close_matches(text, address_forms(), n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(address_forms())}."
        raise BadInput(f"--device {text}: no such way to a device; {hint}")
    return None


def _is_emulated_core(core: str) -> bool:
    from device_tests.boards.board import BOARDS

    return core in BOARDS


def _this_machine() -> dict[str, object]:
    machine = read_machine()
    return {"isa": machine.isa, "cores": machine.cores, "ram_bytes": machine.ram_bytes}
