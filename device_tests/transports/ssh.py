"""A Linux device over ssh: the user's own ssh program, keys, known hosts and configuration; no question is ever asked.

Files travel over the same connection (`cat`), so that a device needs no sftp server, and its own words come back when
its storage is full. EDGE_DEPLOY_SSH_CONFIG names another configuration file than the user's (`ssh -F`).
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from device_tests.remote_shell import COMMAND_S, Answer, ShellTransport, read_facts
from edge_deploy.core.device import Device
from edge_deploy.core.errors import BadInput, DeviceError, MissingExtra

__all__ = ["ADDRESS", "EMULATED", "PREFIX", "SshShell", "connect", "describe"]

PREFIX = "ssh:"
ADDRESS = "user@host[:port]"
EMULATED = False
LOST = 255  # ssh's own exit code, apart from the program's
CONNECT_S = 10
ALIVE_S = 5  # silence after which ssh asks whether the device is still there, three times
WHY = (
    (
        "remote host identification has changed",
        "its host key is not the known one: the device was set up anew, or it is another one. If that is expected, "
        "remove the old key with ssh-keygen -R and connect once by hand",
    ),
    (
        "host key verification failed",
        "its host key is unknown here: connect once by hand with ssh and confirm the key",
    ),
    (
        "permission denied",
        "it did not let us in: this needs a key without a question, so load yours with ssh-add or add it with "
        "ssh-copy-id",
    ),
    ("could not resolve hostname", "there is no such host; check the name"),
    ("connection refused", "nothing listens there; is the ssh server running, and is this its port?"),
    ("timed out", "it does not answer; is it on, and on the same network?"),
    ("no route to host", "it does not answer; is it on, and on the same network?"),
)


def describe(address: str) -> Device:
    """Ask the device what it is; see `device_tests.contracts.TransportModule`.

    Raises:
        BadInput: No such address.
        DeviceError: It does not answer.
    """
    shell = SshShell(address)
    try:
        facts = read_facts(shell)
    finally:
        shell.close()
    return Device(
        name=PREFIX + address,
        kind="single-board" if facts.isa.startswith(("aarch64", "arm", "riscv")) else "server",
        isa=facts.isa,
        cores=facts.cores,
        ram_bytes=facts.ram_bytes,
        runtimes=("litert", "executorch"),
        transport="ssh",
        address=address,
    )


def connect(device: Device) -> ShellTransport:
    """A transport to the device; see `device_tests.contracts.TransportModule`.

    Raises:
        DeviceError: It cannot be reached.
    """
    return ShellTransport(SshShell(device.address), label="over ssh, with its own C library")


class SshShell:
    """See `device_tests.remote_shell.Shell`. All commands share one connection, which lasts until `close`."""

    places: tuple[str, ...] = ("$TMPDIR", "/tmp", "/var/tmp", ".")  # of the device; a folder of our own is made inside

    def __init__(self, address: str) -> None:
        host, port = _parsed(address)
        program = shutil.which("ssh")
        if program is None:
            raise MissingExtra(f"ssh:{address}: there is no ssh program here; apt-get install openssh-client")
        self.where = PREFIX + address
        # A short path: the name of a socket has at most about 100 characters.
        self._sockets = Path(tempfile.mkdtemp(prefix="edssh-"))
        config = os.environ.get("EDGE_DEPLOY_SSH_CONFIG")
        self._command = [
            *(program, *(("-F", config) if config else ()), *(("-p", port) if port else ())),
            *("-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_S}"),
            *("-o", f"ServerAliveInterval={ALIVE_S}", "-o", "ServerAliveCountMax=3"),
            *("-o", "ControlMaster=auto", "-o", f"ControlPath={self._sockets}/%C", "-o", "ControlPersist=60"),
            *("-o", "LogLevel=ERROR", "-T", host),
        ]

    def run(self, command: str, *, timeout_s: float = COMMAND_S) -> Answer:
        """See `device_tests.remote_shell.Shell`."""
        return self._ssh(command, timeout_s=timeout_s)

    def send(self, file: Path, folder: str, name: str, *, timeout_s: float) -> Answer:
        """See `device_tests.remote_shell.Shell`."""
        try:
            with file.open("rb") as source:
                # A command that comes late must not make the run's folder again after it was removed.
                below = shlex.quote(posixpath.dirname(name) or ".")
                line = f"cd {shlex.quote(folder)} && mkdir -p {below} && cat > {shlex.quote(name)}"
                return self._ssh(line, timeout_s=timeout_s, stdin=source, what=str(file))
        except OSError as error:
            raise DeviceError(f"{file}: could not be pushed ({error.strerror or error}).") from error

    def fetch(self, path: str, file: Path, *, timeout_s: float) -> Answer:
        """See `device_tests.remote_shell.Shell`."""
        with file.open("wb") as target:
            return self._ssh(f"cat {shlex.quote(path)}", timeout_s=timeout_s, stdout=target, what=path)

    def process(self, command: str) -> Sequence[str]:
        """See `device_tests.remote_shell.Shell`."""
        return [*self._command, f"sh -c {shlex.quote(command)}"]

    def close(self) -> None:
        """See `device_tests.remote_shell.Shell`."""
        if any(self._sockets.iterdir()):
            command = [*self._command[:-1], "-O", "exit", self._command[-1]]
            with contextlib.suppress(subprocess.TimeoutExpired):  # it ends by itself a minute later
                subprocess.run(command, capture_output=True, timeout=COMMAND_S, check=False)
        shutil.rmtree(self._sockets, ignore_errors=True)

    def _ssh(
        self,
        command: str,
        *,
        timeout_s: float,
        stdin: IO[bytes] | None = None,
        stdout: IO[bytes] | None = None,
        what: str = "",
    ) -> Answer:
        # Standard error goes to a file: the connection that stays in the background keeps it open.
        with tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as out:
            try:
                done = subprocess.run(
                    self.process(command),
                    stdin=stdin if stdin is not None else subprocess.DEVNULL,
                    stdout=stdout if stdout is not None else out,
                    stderr=errors,
                    timeout=timeout_s,
                    check=False,
                )
            except subprocess.TimeoutExpired as error:
                begun = f"{what}: " if what else ""
                raise DeviceError(f"{begun}{self.where}: gave no answer within {timeout_s:.0f} s.") from error
            errors.seek(0)
            out.seek(0)
            words = errors.read().decode(errors="replace")
            answer = Answer(code=done.returncode, out=out.read().decode(errors="replace"), err=words)
        if done.returncode == LOST:
            raise DeviceError(f"{what + ': ' if what else ''}{self.where}: {_reason(words)}")
        return answer


def _reason(words: str) -> str:
    said = " ".join(words.split())[-300:]
    for mark, reason in WHY:
        if mark in words.lower():
            return f"{reason}. (ssh: {said})"
    return f"the connection was lost. (ssh: {said or 'no word'})"


def _parsed(address: str) -> tuple[str, str]:
    """Host as ssh takes it, and the port where one is given."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        host, port = address, ""
    host = host.replace("[", "").replace("]", "")
    # A name that begins with a dash would be an option of ssh.
    if not host or host.startswith("-") or any(c.isspace() for c in host) or "@-" in host or host.endswith("@"):
        raise BadInput(f"--device {PREFIX}{address}: must be {PREFIX}{ADDRESS}.")
    return host, port
