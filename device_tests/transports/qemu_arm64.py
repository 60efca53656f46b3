"""An emulated 64-bit ARM core: native runners with the real NEON and dot-product kernels under qemu's user mode.

Nothing of the machine is changed: no foreign package architecture, no binfmt, no root. Outputs are those of the ARM
kernels; times and memory are the emulator's and mean nothing.
"""

from __future__ import annotations

import difflib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from device_tests.native_channel import NativeChannel
from device_tests.transports.local import LocalTransport
from edge_deploy.core.device import Device
from edge_deploy.core.errors import BadInput, MissingExtra
from runtimes.probes.machine import read_machine

__all__ = ["ADDRESS", "CORES", "EMULATED", "PREFIX", "EmulatedTransport", "connect", "describe", "write_root"]

PREFIX = "qemu:arm64-"
ADDRESS = "cortex-a53|a72|a76"
EMULATED = True
PROGRAMS = ("qemu-aarch64", "qemu-aarch64-static")
NOTES = ("emulated: outputs are those of the ARM kernels, times and memory are the emulator's",)
OLD = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatedCore:
    """A core.

    Attributes:
        part: The number that it has in /proc/cpuinfo.
        features: As Linux names them; more than the core has would make kernels use what is not there.
    """

    part: int
    features: str


NEW = f"{OLD} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"
CORES = {
    "cortex-a35": EmulatedCore(part=0xD04, features=OLD),
    "cortex-a53": EmulatedCore(part=0xD03, features=OLD),
    "cortex-a57": EmulatedCore(part=0xD07, features=OLD),
    "cortex-a72": EmulatedCore(part=0xD08, features=OLD),
    "cortex-a76": EmulatedCore(part=0xD0B, features=NEW),
    "neoverse-n1": EmulatedCore(part=0xD0C, features=NEW),
}


def describe(address: str) -> Device:
    """The emulated core; see `device_tests.contracts.TransportModule`.

    Raises:
        BadInput: There is none of this name, or it is known to compute wrongly.
    """
    if address.startswith("max"):
        raise BadInput(
            f"--device {PREFIX}{address}: qemu's core {address!r} computes INT8 kernels wrongly (its matrix unit); "
            f"take {PREFIX}cortex-a76."
        )
    if address not in CORES:
        close = difflib.get_close_matches(address, CORES, n=1)
        hint = f"did you mean {PREFIX}{close[0]}?" if close else f"known: {', '.join(CORES)}."
        raise BadInput(f"--device {PREFIX}{address}: unknown core; {hint}")
    machine = read_machine()
    return Device(
        name=PREFIX + address,
        kind="emulated",
        isa="aarch64",
        cores=machine.cores,
        ram_bytes=machine.ram_bytes,
        core=address,
        runtimes=("litert", "executorch"),
        transport="qemu-arm64",
        address=address,
    )


def connect(device: Device) -> EmulatedTransport:
    """A transport to the emulated core; see `device_tests.contracts.TransportModule`.

    Raises:
        BadInput: No such core.
        MissingExtra: The emulator is not installed.
    """
    describe(device.address)
    found = next((path for path in map(shutil.which, PROGRAMS) if path), None)
    if found is None:
        raise MissingExtra(f"{device.name}: needs the emulator; apt-get install --no-install-recommends qemu-user")
    return EmulatedTransport(found, device.address)


class EmulatedTransport(LocalTransport):
    """A temporary folder stands for the storage; see `device_tests.contracts.ProgramTransport`."""

    def __init__(self, emulator: str, core: str) -> None:
        super().__init__()
        self._emulator = emulator
        self._core = core
        self._root = Path(self.folder, "root")
        write_root(self._root, CORES[core], cores=read_machine().cores)

    def _wrapped(self, command: Sequence[str]) -> list[str]:
        return [self._emulator, "-L", str(self._root), "-cpu", self._core, *command]

    def run(  # type: ignore[override]  # another channel of the same contract
        self, module: str, arguments: Sequence[str] = (), *, environment: Mapping[str, str] | None = None
    ) -> NativeChannel:
        """A native runner in the place of the Python worker, so `module` is not used."""
        return NativeChannel(
            self,
            isa="aarch64",
            label=f"emulated {self._core} (qemu)",
            environment=environment or {},
            cpu_model=f"{self._core}, emulated by qemu",
            notes=NOTES,
        )


def write_root(root: Path, core: EmulatedCore, *, cores: int) -> None:
    """Write what a runtime reads of a machine, as the core would have it, into a folder.

    The emulator opens absolute paths below this folder first. Without it libraries read the x86 machine's own files, do
    not find their way, and crash.
    """
    cpus = root / "sys/devices/system/cpu"
    cpus.mkdir(parents=True)
    for name in ("possible", "present", "online"):
        (cpus / name).write_text("0\n" if cores == 1 else f"0-{cores - 1}\n", encoding="ascii")
    (cpus / "kernel_max").write_text("255\n", encoding="ascii")
    lines = []
    for number in range(cores):
        lines += [
            f"processor\t: {number}",
            "BogoMIPS\t: 50.00",
            f"Features\t: {core.features}",
            "CPU implementer\t: 0x41",
            "CPU architecture: 8",
            "CPU variant\t: 0x0",
            f"CPU part\t: 0x{core.part:x}",
            "CPU revision\t: 4",
            "",
        ]
    (root / "proc").mkdir()
    (root / "proc/cpuinfo").write_text("\n".join(lines) + "\n", encoding="ascii")
