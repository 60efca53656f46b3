"""A device that artifacts run on: what it has, what runs there, and how it is reached."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from edge_deploy.core.errors import BadInput
from edge_deploy.core.serde import from_json
from edge_deploy.core.units import parse_bytes

__all__ = ["Device", "DeviceKind", "read_device"]

DeviceKind: TypeAlias = Literal["host", "server", "phone", "single-board", "microcontroller", "emulated"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One device.

    Attributes:
        kind: "emulated" for everything whose timing says nothing of the real thing.
        isa: Instruction set, e.g. "x86_64", "aarch64", "armv7e-m".
        ram_bytes: Memory that the device has in all.
        flash_bytes: Where artifacts are stored; None where it is a disk nobody needs to count.
        runtimes: Names of engines in the order of preference.
        transport: Name of a module in `device_tests.transports`.
    """

    name: str
    kind: DeviceKind
    isa: str
    cores: int
    ram_bytes: int
    flash_bytes: int | None = None
    runtimes: tuple[str, ...] = ()
    transport: str = "local"

    def __post_init__(self) -> None:
        problems = []
        if self.cores < 1:
            problems.append(f"device {self.name}: cores = {self.cores}: must be at least 1.")
        if self.ram_bytes < 1:
            problems.append(f"device {self.name}: ram_bytes = {self.ram_bytes}: must be positive.")
        if self.flash_bytes is not None and self.flash_bytes < 1:
            problems.append(f"device {self.name}: flash_bytes = {self.flash_bytes}: must be positive or absent.")
        if problems:
            raise BadInput(*problems)


def read_device(path: Path, *, detected: dict[str, Any] | None = None) -> Device:
    """The device that a TOML file describes; its name is the file's name.

    Args:
        detected: Fields that the file leaves out, e.g. read from the machine itself.

    Raises:
        BadInput: The file cannot be read, or a key is unknown, missing or wrong.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput(f"{path}: not a device description ({error}).") from error
    # In the file memory stands as people write it: ram = "4 GiB".
    for short in ("ram", "flash"):
        if short in data:
            data[f"{short}_bytes"] = parse_bytes(data.pop(short), where=f"{path}: {short}")
    return from_json(Device, {"name": path.stem, **(detected or {}), **data}, where=str(path))
