"""The real OpenSSH server on a free port of the loopback, with keys of its own; one process for each connection."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from edge_deploy.core.errors import MissingExtra

__all__ = ["Sshd", "loopback_sshd"]

CONFIG = "EDGE_DEPLOY_SSH_CONFIG"
SERVER = "/usr/sbin/sshd"


class Sshd:
    """A running server.

    Attributes:
        address: As `--device ssh:` takes it.
        folder: Holds `config` of the client, its key, and known_hosts.
    """

    def __init__(
        self, folder: Path, program: str, environment: Mapping[str, str], vanishes_after_bytes: int | None
    ) -> None:
        self.folder = folder
        self._patience = vanishes_after_bytes
        self._program = program
        self._children: list[subprocess.Popen[bytes]] = []
        for name in ("host", "user"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
            subprocess.run(command, check=True, capture_output=True, timeout=60)
        (folder / "authorized").write_text((folder / "user.pub").read_text(encoding="ascii"), encoding="ascii")
        settings = " ".join(f'{name}="{value}"' for name, value in environment.items())
        (folder / "sshd_config").write_text(
            f"HostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\nStrictModes no\nUsePAM no\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n"
            "LogLevel QUIET\nPrintMotd no\n" + (f"SetEnv {settings}\n" if settings else ""),
            encoding="utf-8",
        )
        self._socket = socket.create_server(("127.0.0.1", 0))
        port = self._socket.getsockname()[1]
        self.address = f"{getpass.getuser()}@127.0.0.1:{port}"
        key = (folder / "host.pub").read_text(encoding="ascii")
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {key}", encoding="ascii")
        (folder / "config").write_text(
            f"IdentityFile {folder}/user\nIdentitiesOnly yes\nUserKnownHostsFile {folder}/known_hosts\n"
            "GlobalKnownHostsFile /dev/null\nIdentityAgent none\n",
            encoding="utf-8",
        )
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        command = [self._program, "-i", "-f", str(self.folder / "sshd_config")]
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:  # closed
                return
            with connection:
                if self._patience is None:
                    self._start(command, connection)
                    continue
                # The server's end of a pair; between it and the client somebody counts.
                inner, outer = socket.socketpair()
                with outer:
                    self._start(command, outer)
                client = connection.dup()
            threading.Thread(target=self._pass_on, args=(client, inner), daemon=True).start()
            threading.Thread(target=self._pass_on, args=(inner, client, False), daemon=True).start()

    def _start(self, command: list[str], connection: socket.socket) -> None:
        number = connection.fileno()
        self._children.append(subprocess.Popen(command, stdin=number, stdout=number, cwd="/"))

    def _pass_on(self, source: socket.socket, target: socket.socket, is_counted: bool = True) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 14):
                if is_counted:
                    assert self._patience is not None
                    self._patience -= len(data)
                    if self._patience < 0:
                        break
                target.sendall(data)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def vanish(self) -> None:
        """End every connection, as a device does that loses its power, and take no new one."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for child in self._children:
            # A session's own process is a child of this one and ends with its connection.
            child.kill()
            child.wait()


@contextlib.contextmanager
def loopback_sshd(
    environment: Mapping[str, str] | None = None, *, vanishes_after_bytes: int | None = None
) -> Iterator[Sshd]:
    """A server that lets in whoever runs this, by a key that EDGE_DEPLOY_SSH_CONFIG leads to meanwhile.

    Args:
        environment: Variables that sessions on the "device" have.
        vanishes_after_bytes: So much may arrive, over all connections, before they break; None for never.

    Raises:
        MissingExtra: The server is not installed.
    """
    program = shutil.which("sshd") or (SERVER if Path(SERVER).exists() else None)
    if program is None or shutil.which("ssh") is None:
        raise MissingExtra("sshd: not installed; apt-get install --no-install-recommends openssh-server")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # which its start-up script would make
    before = os.environ.get(CONFIG)
    with tempfile.TemporaryDirectory(prefix="edge-deploy-sshd-") as folder:
        server = Sshd(Path(folder), program, environment or {}, vanishes_after_bytes)
        os.environ[CONFIG] = str(server.folder / "config")
        try:
            yield server
        finally:
            server.vanish()
            os.environ.pop(CONFIG)
            if before is not None:
                os.environ[CONFIG] = before
