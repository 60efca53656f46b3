"""The machine itself as a device: a temporary folder and child processes that answer over pipes."""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from edge_deploy.core.device import Device
from edge_deploy.core.digest import file_sha256
from edge_deploy.core.errors import DeviceError, ToolchainError, error_from_json
from runtimes.probes.machine import read_machine

__all__ = ["ADDRESS", "EMULATED", "PREFIX", "LocalChannel", "LocalTransport", "connect", "describe"]

PREFIX = ""
ADDRESS = ""
EMULATED = False
TAIL_CHARACTERS = 2000


def describe(address: str) -> Device:
    """This machine; see `device_tests.contracts.TransportModule`."""
    machine = read_machine()
    return Device(name="host", kind="host", isa=machine.isa, cores=machine.cores, ram_bytes=machine.ram_bytes)


def connect(device: Device) -> LocalTransport:
    """A transport to this machine."""
    return LocalTransport()


class LocalTransport:
    """A fresh temporary folder stands for the device's storage.

    Attributes:
        folder: Its path.
        pushed: What came from where, by path on the device.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="edge-deploy-device-"))
        self.folder = str(self._folder)
        self.pushed: dict[str, Path] = {}

    def push(self, file: Path, name: str, *, sha256: str | None = None) -> str:
        """See `device_tests.contracts.Transport`. On the same disk the file is linked, not copied."""
        target = self._inside(name)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(file.resolve(), target)  # a link to a link would point nowhere
            except OSError:  # another disk, or a file system without links
                shutil.copyfile(file, target)
            found = file_sha256(target)
            wanted = sha256 or file_sha256(file)
        except OSError as error:
            raise DeviceError(f"{file}: could not be pushed ({error.strerror or error}).") from error
        if found != wanted:
            raise DeviceError(f"{file}: sha256 {found} arrived: must be {wanted}; the file was changed or damaged.")
        self.pushed[str(target)] = file
        return str(target)

    def run(
        self, module: str, arguments: Sequence[str] = (), *, environment: Mapping[str, str] | None = None
    ) -> LocalChannel:
        """See `device_tests.contracts.Transport`."""
        return LocalChannel([sys.executable, "-m", module, *arguments], environment=environment or {})

    def start(
        self, command: Sequence[str], *, environment: Mapping[str, str] | None = None, what: str = "native runner"
    ) -> LocalChannel:
        """See `device_tests.contracts.ProgramTransport`."""
        try:
            return LocalChannel(self._startable(command), environment=environment or {}, what=what)
        except OSError as error:
            raise DeviceError(f"{what}: cannot be started ({error.strerror or error}).") from error

    def complete(self, command: Sequence[str], *, timeout_s: float) -> tuple[int, str]:
        """See `device_tests.contracts.ProgramTransport`."""
        program = Path(command[0])
        try:
            process = subprocess.Popen(
                self._startable(command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            return 126, f"{program.name}: cannot be started ({error.strerror})"
        with process:
            try:
                printed, _ = process.communicate(timeout=timeout_s)
            except subprocess.TimeoutExpired as error:
                raise DeviceError(f"{program.name}: did not end within {timeout_s:.0f} s, and was ended.") from error
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)  # with whatever it started
        return process.returncode, printed.decode(errors="replace")

    def _startable(self, command: Sequence[str]) -> list[str]:
        """The command with a program that may be executed, which a pushed file need not be."""
        program = Path(command[0])
        if program.is_relative_to(self._folder) and program.is_file() and not os.access(program, os.X_OK):
            # A copy, because the file may be linked to the original, whose mode is the user's.
            copied = program.with_name(f"{program.name}.run")
            shutil.copyfile(program, copied)
            copied.chmod(0o755)
            command = [str(copied), *command[1:]]
        return self._wrapped(command)

    def _wrapped(self, command: Sequence[str]) -> list[str]:
        """The command as this machine starts it."""
        return list(command)

    def pull(self, name: str, destination: Path) -> None:
        """See `device_tests.contracts.Transport`."""
        source = self._inside(name)
        try:
            shutil.copyfile(source, destination)
        except OSError as error:
            raise DeviceError(f"{name}: could not be pulled ({error.strerror or error}).") from error

    def close(self) -> None:
        """See `device_tests.contracts.Transport`."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _inside(self, name: str) -> Path:
        target = (self._folder / name).resolve()
        if not target.is_relative_to(self._folder.resolve()):
            raise DeviceError(f"{name}: must lie inside the run's folder.")
        return target


class LocalChannel:
    """A child process that reads one JSON object a line and answers with one."""

    def __init__(
        self, command: Sequence[str], *, environment: Mapping[str, str], what: str = "benchmark worker"
    ) -> None:
        self._what = what
        self._log: IO[bytes] = tempfile.TemporaryFile(prefix="edge-deploy-worker-")  # noqa: SIM115  # close() ends it
        paths = os.pathsep.join(path for path in sys.path if path)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, **environment, "PYTHONPATH": paths},
            start_new_session=True,
        )
        self._waiting = bytearray()

    def ask(self, request: Mapping[str, Any], *, timeout_s: float) -> Any:
        """See `device_tests.contracts.Channel`."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError) as error:
            raise self._death() from error
        line = self._line(timeout_s)
        try:
            answer = json.loads(line)
        except ValueError as error:
            words = line.decode(errors="replace")[-TAIL_CHARACTERS:]
            raise DeviceError(f"{self._what}: answered what is no JSON: {words}") from error
        if "error" in answer:
            raise error_from_json(answer["error"])
        if "failure" in answer:
            raise ToolchainError(f"{self._what}: {answer['failure']}")
        return answer["value"]

    def close(self) -> None:
        """See `device_tests.contracts.Channel`."""
        if self._process.poll() is None:
            # Its whole process group: a runtime may have started helpers of its own.
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    continue  # the unread rest of a request to a dead worker
        self._log.close()

    def _line(self, timeout_s: float) -> bytes:
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while (end := self._waiting.find(b"\n")) < 0:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise DeviceError(f"{self._what}: gave no answer within {timeout_s:.0f} s.")
                chunk = os.read(self._process.stdout.fileno(), 1 << 16)
                if not chunk:
                    raise self._death()
                self._waiting += chunk
        line = bytes(self._waiting[:end])
        del self._waiting[: end + 1]
        return line

    def _death(self) -> DeviceError:
        code = self._process.wait()
        how = f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        self._log.seek(0)
        words = self._log.read().decode(errors="replace")[-TAIL_CHARACTERS:].strip() or "(none)"
        return DeviceError(f"{self._what}: the process that ran the model {how}. Its last words:\n{words}")
