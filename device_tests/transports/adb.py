"""An Android device over the real adb client: files by its push and pull, programs by its shell.

Android's C library is not the one that the runtimes' wheels were built for, so a native program brings its own loader
and libraries and is started through that loader; reports say so. An app uses the runtime's Android package instead:
times are near, and memory differs by the libraries.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from device_tests.remote_shell import COMMAND_S, Answer, ShellTransport, read_facts
from edge_deploy.core.device import Device
from edge_deploy.core.errors import BadInput, DeviceError, MissingExtra

__all__ = ["ADDRESS", "EMULATED", "PREFIX", "AdbShell", "connect", "describe"]

PREFIX = "adb:"
ADDRESS = "serial"
EMULATED = False
LABEL = "Android, started through a loader and C library of its own"
NOTE = "run by a glibc bundle through its own loader, not by the runtime's Android package"
WHY = (
    ("unauthorized", "confirm the question on its screen that allows debugging from this computer"),
    ("offline", "it is offline: plug it in again, or adb reconnect"),
    (
        "not found",
        "adb does not see it; `adb devices` lists what it sees, and a device on the network needs adb connect",
    ),
    ("no devices", "adb sees no device; is it plugged in, and is USB debugging allowed in its settings?"),
    ("more than one", "several devices are there; name one by its serial number (adb devices)"),
    ("closed", "the connection was lost"),
    ("cannot connect to daemon", "the adb server cannot be started here"),
)


def describe(address: str) -> Device:
    """Ask the device what it is; see `device_tests.contracts.TransportModule`.

    Raises:
        BadInput: No such address.
        DeviceError: It does not answer.
    """
    facts = read_facts(AdbShell(address))
    return Device(
        name=PREFIX + address,
        kind="phone",
        isa=facts.isa,
        cores=facts.cores,
        ram_bytes=facts.ram_bytes,
        runtimes=("litert", "executorch"),
        transport="adb",
        address=address,
    )


def connect(device: Device) -> ShellTransport:
    """A transport to the device; see `device_tests.contracts.TransportModule`.

    Raises:
        DeviceError: It cannot be reached.
    """
    return ShellTransport(AdbShell(device.address), label=LABEL, notes=(NOTE,))


class AdbShell:
    """See `device_tests.remote_shell.Shell`; the serial number is what `adb devices` shows, e.g. "192.168.1.7:5555"."""

    places: tuple[str, ...] = ("/data/local/tmp",)

    def __init__(self, serial: str) -> None:
        program = shutil.which("adb")
        if program is None:
            raise MissingExtra(f"{PREFIX}{serial}: there is no adb program here; apt-get install adb")
        if not serial or serial.startswith("-") or any(c.isspace() for c in serial):
            raise BadInput(f"--device {PREFIX}{serial}: must be {PREFIX}{ADDRESS}, as adb devices shows it.")
        self.where = PREFIX + serial
        self._command = [program, "-s", serial]

    def run(self, command: str, *, timeout_s: float = COMMAND_S) -> Answer:
        """See `device_tests.remote_shell.Shell`."""
        answer = self._adb("shell", "-T", "-n", command, timeout_s=timeout_s)
        # adb has no exit code of its own: it says 1 for itself, and begins with its name or "error:".
        if answer.code and (answer.err.startswith(("error:", "adb:", "* ")) or "\nerror:" in answer.err):
            raise DeviceError(f"{self.where}: {_reason(answer.err)}")
        return answer

    def send(self, file: Path, folder: str, name: str, *, timeout_s: float) -> Answer:
        """See `device_tests.remote_shell.Shell`."""
        # A link would be sent as a link.
        return self._transfer("push", str(file.resolve()), f"{folder}/{name}", timeout_s=timeout_s)

    def fetch(self, path: str, file: Path, *, timeout_s: float) -> Answer:
        """See `device_tests.remote_shell.Shell`."""
        return self._transfer("pull", path, str(file), timeout_s=timeout_s)

    def process(self, command: str) -> Sequence[str]:
        """See `device_tests.remote_shell.Shell`."""
        return [*self._command, "shell", "-T", command]

    def close(self) -> None:
        """See `device_tests.remote_shell.Shell`; the adb server is the user's, and stays."""

    def _transfer(self, *words: str, timeout_s: float) -> Answer:
        answer = self._adb(*words, timeout_s=timeout_s)
        if answer.code and self._adb("get-state", timeout_s=COMMAND_S).code:
            raise DeviceError(f"{words[1]}: {self.where}: {_reason(answer.err + answer.out)}")
        return answer

    def _adb(self, *words: str, timeout_s: float) -> Answer:
        try:
            done = subprocess.run(
                [*self._command, *words],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            what = f"{words[1]}: " if words[0] in ("push", "pull") else ""
            raise DeviceError(f"{what}{self.where}: gave no answer within {timeout_s:.0f} s.") from error
        return Answer(
            code=done.returncode, out=done.stdout.decode(errors="replace"), err=done.stderr.decode(errors="replace")
        )


def _reason(words: str) -> str:
    said = " ".join(words.split())[-300:]
    for mark, reason in WHY:
        if mark in words.lower():
            return f"{reason}. (adb: {said})"
    return f"adb failed. (adb: {said or 'no word'})"
