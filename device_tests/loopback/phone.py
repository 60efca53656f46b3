"""A phone for the real adb client: an adb server on a socket of ours, connected to a device end of ours."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from device_tests.loopback.adbd import Adbd
from device_tests.loopback.android_root import add_emulator, make_root, shell_command
from edge_deploy.core.errors import DeviceError, MissingExtra

__all__ = ["Phone", "loopback_phone"]

SOCKET = "ADB_SERVER_SOCKET"


class Phone:
    """A connected device.

    Attributes:
        serial: As `--device adb:` takes it.
        root: Its file system.
    """

    def __init__(self, device: Adbd) -> None:
        self.serial = f"127.0.0.1:{device.port}"
        self.root = device.root

    def left_behind(self) -> list[str]:
        """What lies in the folder that runs use."""
        return sorted(each.name for each in (self.root / "data/local/tmp").iterdir())


@contextlib.contextmanager
def loopback_phone(
    *, room_bytes: int | None = None, vanishes_after_bytes: int | None = None, core: str | None = None
) -> Iterator[Phone]:
    """A phone that `adb` sees while the block runs; see `device_tests.loopback.adbd.Adbd` for its weaknesses.

    Args:
        core: Its processor, an emulated one as "cortex-a76"; None for this machine's.

    Raises:
        MissingExtra: adb, a static busybox or the emulator is not installed, or namespaces are forbidden here.
        DeviceError: adb does not find it.
    """
    adb = shutil.which("adb")
    if adb is None:
        raise MissingExtra("adb: not installed; apt-get install --no-install-recommends adb")
    before = os.environ.get(SOCKET)
    with tempfile.TemporaryDirectory(prefix="edadb-") as folder:
        root = make_root(Path(folder, "root"))
        emulator = None
        if core is not None:
            emulator = Path(folder, "emulator")
            add_emulator(root, emulator, core)
        command = shell_command(root, "true", emulator=emulator)
        tried = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        if tried.returncode:
            raise MissingExtra(f"unshare: a folder cannot stand for a device here: {tried.stderr.strip()[-200:]}")
        os.environ[SOCKET] = f"localfilesystem:{folder}/adb.sock"
        # The server keeps its keys in the home folder.
        server = {**os.environ, "HOME": folder}
        try:
            weak = Adbd(root, room_bytes=room_bytes, vanishes_after_bytes=vanishes_after_bytes, emulator=emulator)
            with weak.running() as device:
                phone = Phone(device)
                for words in (["start-server"], ["connect", phone.serial]):
                    done = subprocess.run(
                        [adb, *words], env=server, capture_output=True, text=True, check=False, timeout=60
                    )
                if "connected" not in done.stdout:
                    raise DeviceError(f"adb: does not find the loopback device: {done.stdout}{done.stderr}")
                yield phone
                subprocess.run([adb, "kill-server"], env=server, capture_output=True, check=False, timeout=60)
        finally:
            os.environ.pop(SOCKET)
            if before is not None:
                os.environ[SOCKET] = before
