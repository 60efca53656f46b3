"""A device that is reached by a shell of its own: a folder for the run, files with checksums, native programs.

What stays the same for ssh and adb stands here; how a command or a file gets there is the `Shell`'s.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import posixpath
import re
import secrets
import shlex
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from device_tests.native_channel import NativeChannel
from device_tests.transports.local import LocalChannel
from edge_deploy.core.digest import file_sha256
from edge_deploy.core.errors import DeviceError, Unsupported
from edge_deploy.core.units import format_bytes

__all__ = ["Answer", "DeviceFacts", "Shell", "ShellTransport", "read_facts", "transfer_s"]

COMMAND_S = 30.0
SLOWEST_BYTES_PER_S = 200_000
NO_SPACE = ("no space left", "disk quota exceeded", "not enough space", "file too large")
PREFIX = "edge-deploy-run"
ISAS = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a command on the device gave."""

    code: int
    out: str
    err: str


class Shell(Protocol):
    """Commands and files of one device.

    Attributes:
        where: The device as the user wrote it, for messages.
        places: Folders of the device where a run may put its own, best first; "$NAME" stands for a variable there.
    """

    where: str
    places: tuple[str, ...]

    def run(self, command: str, *, timeout_s: float = COMMAND_S) -> Answer:
        """Run a line in the device's shell to its end.

        Raises:
            DeviceError: The device is gone, refuses us, or gives no answer in time.
        """

    def send(self, file: Path, folder: str, name: str, *, timeout_s: float) -> Answer:
        """Write a file on the device, in or below a folder that is there; a code other than 0 says that it failed."""

    def fetch(self, path: str, file: Path, *, timeout_s: float) -> Answer:
        """Read a file of the device."""

    def process(self, command: str) -> Sequence[str]:
        """What to start here, so that its standard streams are those of `command` on the device."""

    def close(self) -> None:
        """End the connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """What a device says of itself."""

    isa: str
    cores: int
    ram_bytes: int
    model: str


def read_facts(shell: Shell) -> DeviceFacts:
    """Ask the device what it is.

    Raises:
        DeviceError: It does not answer, or not as a Linux does.
    """
    answer = shell.run("uname -m; cat /proc/meminfo; grep -c ^processor /proc/cpuinfo; getprop ro.product.model 2>&1")
    lines = answer.out.splitlines()
    ram = re.search(r"MemTotal:\s*(\d+) kB", answer.out)
    counts = [line for line in lines if line.isdigit()]
    if not lines or ram is None:
        words = (answer.out + answer.err).strip()[-300:] or "nothing"
        raise DeviceError(f"{shell.where}: must be a Linux or Android device with /proc; its shell said: {words}")
    last = lines[-1].strip()
    return DeviceFacts(
        isa=ISAS.get(lines[0].strip(), lines[0].strip()),
        cores=max(1, int(counts[0]) if counts else 1),
        ram_bytes=int(ram[1]) * 1024,
        model="" if last.isdigit() or "getprop" in last else last,
    )


def transfer_s(size: int) -> float:
    """Longest time that a transfer may take: a generous one for a slow link, and yet bounded."""
    return COMMAND_S + size / SLOWEST_BYTES_PER_S


class ShellTransport:
    """See `device_tests.contracts.ProgramTransport`; the run's folder is made at once and removed by `close`.

    A run that was cut off leaves its folder on the device; the next one from this machine removes it.

    Args:
        label: How native programs run there, for reports.
    """

    def __init__(self, shell: Shell, *, label: str, notes: Sequence[str] = ()) -> None:
        self._shell = shell
        self._label = label
        self._notes = tuple(notes)
        self._is_open = True
        self.pushed: dict[str, Path] = {}
        try:
            self._isa = read_facts(shell).isa
            self.folder = self._new_folder()
        except BaseException:
            shell.close()
            raise

    def push(self, file: Path, name: str, *, sha256: str | None = None) -> str:
        """See `device_tests.contracts.Transport`."""
        path = self._inside(name)
        try:
            size, wanted = file.stat().st_size, sha256 or file_sha256(file)
        except OSError as error:
            raise DeviceError(f"{file}: could not be pushed ({error.strerror or error}).") from error
        partial = f"{path}.partial"
        sent = self._shell.send(file, self.folder, posixpath.relpath(partial, self.folder), timeout_s=transfer_s(size))
        if sent.code:
            self._refused(file, size, sent)
        found = self._digest(partial, size, wanted=wanted, path=path)
        if found != wanted:
            self._shell.run(f"rm -f {shlex.quote(partial)}")
            raise DeviceError(
                f"{file}: sha256 {found} arrived on {self._shell.where}: must be {wanted}; the file was changed or "
                "damaged, or the device's storage is full."
            )
        self.pushed[path] = file
        return path

    def start(
        self, command: Sequence[str], *, environment: Mapping[str, str] | None = None, what: str = "native runner"
    ) -> LocalChannel:
        """See `device_tests.contracts.ProgramTransport`."""
        for program in command:
            if program.startswith(f"{self.folder}/"):
                self._must(f"chmod -R u+rwx {shlex.quote(posixpath.dirname(program))}", f"{what}: cannot be started")
                break
        settings = " ".join(f"{name}={shlex.quote(value)}" for name, value in (environment or {}).items())
        line = (
            f"cd {shlex.quote(self.folder)} && echo $$ >> pids && "
            f"{'export ' + settings + ' && ' if settings else ''}exec {shlex.join(command)}"
        )
        return LocalChannel(self._shell.process(line), environment={}, what=f"{what} on {self._shell.where}")

    def complete(self, command: Sequence[str], *, timeout_s: float) -> tuple[int, str]:
        """See `device_tests.contracts.ProgramTransport`."""
        if command[0].startswith(f"{self.folder}/"):
            self._must(f"chmod u+rwx {shlex.quote(command[0])}", f"{command[0]}: cannot be started")
        line = f"cd {shlex.quote(self.folder)} && {{ {shlex.join(command)} & echo $! >> pids; wait $!; }}"
        answer = self._shell.run(line, timeout_s=timeout_s)
        return answer.code, answer.out + answer.err

    def run(
        self, module: str, arguments: Sequence[str] = (), *, environment: Mapping[str, str] | None = None
    ) -> NativeChannel:
        """A native runner in the place of the Python worker: the device needs no Python, so `module` is not used."""
        known = sorted(set(ISAS.values()))
        if self._isa not in known:
            raise Unsupported(
                f"{self._shell.where}: processor {self._isa}: native runners are for {' and '.join(known)}."
            )
        return NativeChannel(self, isa=self._isa, label=self._label, environment=environment or {}, notes=self._notes)

    def pull(self, name: str, destination: Path) -> None:
        """See `device_tests.contracts.Transport`."""
        path = self._inside(name)
        told = self._shell.run(f"wc -c < {shlex.quote(path)}")
        if told.code or not told.out.strip().isdigit():
            raise DeviceError(f"{name}: could not be pulled from {self._shell.where} ({told.err.strip()[-200:]}).")
        size = int(told.out)
        answer = self._shell.fetch(path, destination, timeout_s=transfer_s(size))
        if answer.code or destination.stat().st_size != size:
            raise DeviceError(f"{name}: could not be pulled from {self._shell.where} ({answer.err.strip()[-200:]}).")

    def close(self) -> None:
        """See `device_tests.contracts.Transport`; a device that is gone keeps its folder until the next run."""
        if not self._is_open:
            return
        self._is_open = False
        folder = shlex.quote(self.folder)
        try:
            # A program that hangs would keep its files.
            self._shell.run(
                f"for p in $(cat {folder}/pids 2>/dev/null); do kill -9 $p 2>/dev/null; done; rm -rf {folder}"
            )
        except DeviceError:
            pass  # nothing more can be done, and what went wrong was said already
        finally:
            self._shell.close()

    def _new_folder(self) -> str:
        mark = f"{PREFIX}-{_this_machine()}"
        name = f"{mark}-{os.getpid()}-{secrets.token_hex(4)}"
        problems = []
        for wish in self._shell.places:
            place = self._shell.run(f'echo "{wish}"').out.strip() if wish.startswith("$") else wish
            if not place:
                continue
            folder = posixpath.join(place, name)
            # An empty file is a program that does nothing; a place where programs are forbidden refuses it.
            trial = shlex.quote(f"{folder}/.trial")
            made = self._shell.run(
                f"umask 077; mkdir {shlex.quote(folder)} && : > {trial} && chmod 700 {trial} && {trial} && "
                f"rm {trial} && cd {shlex.quote(place)} && ls -d {mark}-*"
            )
            if made.code == 0:
                self._remove_left_over(place, mark, made.out.split())
                return folder
            self._shell.run(f"rm -rf {shlex.quote(folder)}")
            problems.append(f"{place}: {made.err.strip()[-200:] or f'exit code {made.code}'}")
        raise DeviceError(
            f"{self._shell.where}: no folder for programs can be made there: {'; '.join(problems)}; set TMPDIR there "
            "to a place that may be written and executed from."
        )

    def _remove_left_over(self, place: str, mark: str, names: Sequence[str]) -> None:
        """Remove folders of runs of this machine whose process has ended."""
        old = []
        for name in names:
            number = name.removeprefix(f"{mark}-").partition("-")[0]
            if name.startswith(f"{mark}-") and number.isdigit() and not _is_alive(int(number)):
                old.append(shlex.quote(posixpath.join(place, name)))
        if old:
            self._shell.run(f"rm -rf {' '.join(old)}")

    def _digest(self, partial: str, size: int, *, wanted: str, path: str) -> str:
        """The sha256 of what arrived; if it is the wanted one, the file has its name now. One round trip."""
        move = f"mv -f {shlex.quote(partial)} {shlex.quote(path)}"
        line = f's=$(sha256sum {shlex.quote(partial)}) && case "$s" in {wanted}*) {move};; esac && echo "$s"'
        told = self._shell.run(line, timeout_s=transfer_s(size))
        word = told.out.partition(" ")[0].lstrip("\\")
        if told.code or not re.fullmatch("[0-9a-f]{64}", word):
            raise DeviceError(
                f"{self._shell.where}: cannot compute a sha256 ({told.err.strip()[-200:]}); it needs sha256sum, as "
                "Android, busybox and coreutils have it."
            )
        return word

    def _refused(self, file: Path, size: int, sent: Answer) -> None:
        self._shell.run(f"rm -f {shlex.quote(self.folder)}/*.partial {shlex.quote(self.folder)}/*/*.partial")
        text = (sent.err + sent.out).strip()
        if any(words in text.lower() for words in NO_SPACE):
            free = self._shell.run(f"df -Pk {shlex.quote(self.folder)}").out.split()
            left = f" ({format_bytes(int(free[-3]) * 1024)} left)" if len(free) > 3 and free[-3].isdigit() else ""
            raise DeviceError(
                f"{file}: {format_bytes(size)} do not fit on {self._shell.where}: no space left in {self.folder}{left}."
            )
        raise DeviceError(f"{file}: could not be pushed to {self._shell.where}: {text[-300:] or 'it was cut off'}")

    def _must(self, command: str, what: str) -> None:
        answer = self._shell.run(command)
        if answer.code:
            text = answer.err.strip()[-300:] or f"exit code {answer.code}"
            raise DeviceError(f"{what} on {self._shell.where}: {text}")

    def _inside(self, name: str) -> str:
        path = posixpath.normpath(posixpath.join(self.folder, name))
        if not path.startswith(f"{self.folder}/"):
            raise DeviceError(f"{name}: must lie inside the run's folder.")
        return path


def _this_machine() -> str:
    """A mark of this machine, and of this container on it: only here a process number says whether a run has ended."""
    words = [socket.gethostname()]
    with contextlib.suppress(OSError):
        words.append(str(Path("/proc/self/ns/pid").readlink()))
    with contextlib.suppress(OSError):
        words.append(Path("/etc/machine-id").read_text(encoding="ascii", errors="replace"))
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:12]


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
