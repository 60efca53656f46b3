"""A device that artifacts run on: what it has, what runs there, and how it is reached."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias

from edge_deploy.core.errors import BadInput
from edge_deploy.core.serde import from_json
from edge_deploy.core.units import parse_bytes, parse_hertz

__all__ = ["Device", "DeviceKind", "read_device"]

DeviceKind: TypeAlias = Literal["host", "server", "phone", "single-board", "microcontroller", "emulated"]
# In a file amounts stand as people write them: ram = "4 GiB", clock = "180 MHz".
AMOUNTS = {
    "ram": ("ram_bytes", parse_bytes),
    "flash": ("flash_bytes", parse_bytes),
    "ram_block": ("ram_block_bytes", parse_bytes),
    "clock": ("clock_hz", parse_hertz),
    "npu_clock": ("npu_clock_hz", parse_hertz),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One device.

    Attributes:
        kind: "emulated" for everything whose timing says nothing of the real thing.
        isa: Instruction set, e.g. "x86_64", "aarch64", "armv7e-m".
        cores: Of all kinds together.
        ram_bytes: Memory that the device has in all.
        flash_bytes: Where artifacts are stored; None where it is a disk nobody needs to count.
        ram_block_bytes: The largest stretch of memory without a gap, into which an arena must fit; None: all of it.
        core: The (fastest) core, e.g. "cortex-m4"; empty where unknown.
        clock_hz: Of that core at most; None where unknown.
        npu: Accelerator as its compiler names it, e.g. "ethos-u55-128"; empty without one.
        runtimes: Names of engines in the order of preference.
        transport: Name of a module in `device_tests.transports`; empty where the user has to say it.
        address: Where that transport finds it, e.g. "pi@raspberrypi.local"; empty where there is one place only, or
            where the user has not said yet.
        source: Where these facts are published.
    """

    name: str
    kind: DeviceKind
    isa: str
    cores: int
    ram_bytes: int
    flash_bytes: int | None = None
    ram_block_bytes: int | None = None
    core: str = ""
    clock_hz: float | None = None
    npu: str = ""
    npu_clock_hz: float | None = None
    runtimes: tuple[str, ...] = ()
    transport: str = "local"
    address: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        problems = []
        if self.cores < 1:
            problems.append(f"device {self.name}: cores = {self.cores}: must be at least 1.")
        if self.ram_bytes < 1:
            problems.append(f"device {self.name}: ram_bytes = {self.ram_bytes}: must be positive.")
        if self.flash_bytes is not None and self.flash_bytes < 1:
            problems.append(f"device {self.name}: flash_bytes = {self.flash_bytes}: must be positive or absent.")
        if self.ram_block_bytes is not None and not 0 < self.ram_block_bytes <= self.ram_bytes:
            problems.append(
                f"device {self.name}: ram_block_bytes = {self.ram_block_bytes}: must lie in 1 to {self.ram_bytes}, or "
                "be absent."
            )
        if problems:
            raise BadInput(*problems)

    @property
    def arena_room_bytes(self) -> int:
        """What an arena may take at most, everything else left out."""
        return self.ram_block_bytes or self.ram_bytes


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
    problems = _unknown_keys(data, path)
    for short, (name, parse) in AMOUNTS.items():
        if short in data:
            data[name] = parse(data.pop(short), where=f"{path}: {short}")
    try:
        found = from_json(Device, {"name": path.stem, **(detected or {}), **data}, where=str(path))
    except BadInput as error:
        problems += error.problems
    if problems:
        raise BadInput(*problems)
    return found


def _unknown_keys(data: dict[str, Any], path: Path) -> list[str]:
    """Take the keys that no description has out of the data; each is answered with the key that was meant."""
    written = {name: short for short, (name, _) in AMOUNTS.items()}
    known = [written.get(field.name, field.name) for field in fields(Device)]
    problems = []
    for key in [key for key in data if key not in known and key not in written]:
        close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}."
        problems.append(f"{path}: {key}: unknown key; {hint}")
        del data[key]
    return problems
