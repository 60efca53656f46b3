"""A folder that stands for a phone's file system: a shell and small tools, and neither a C library nor Python."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from edge_deploy.core.errors import MissingExtra

__all__ = ["make_root", "shell_command"]

TOOLS = "cat chmod cp df echo env false grep head id kill ls mkdir mv rm sh sha256sum sleep tail true uname wc"
ENTER = 'mount --rbind /proc "$1/proc" && exec chroot "$1" /system/bin/sh -c "$2"'


def make_root(folder: Path) -> Path:
    """Fill an empty folder; programs there come from a static busybox.

    Raises:
        MissingExtra: There is no static busybox here.
    """
    busybox = shutil.which("busybox")
    if busybox is None:
        raise MissingExtra("busybox: not installed; apt-get install busybox-static")
    said = subprocess.run(["ldd", busybox], capture_output=True, text=True, check=False, timeout=60)
    if "=>" in said.stdout:
        raise MissingExtra(f"{busybox}: is no static program; apt-get install busybox-static")
    tools = folder / "system/bin"
    tools.mkdir(parents=True)
    shutil.copy2(busybox, tools / "busybox")
    for name in TOOLS.split():
        (tools / name).symlink_to("busybox")
    (tools / "getprop").write_text('#!/system/bin/sh\necho "Loopback phone"\n', encoding="ascii")
    (tools / "getprop").chmod(0o755)
    for name in ("data/local/tmp", "proc", "dev", "sys/devices/system/cpu"):
        (folder / name).mkdir(parents=True)
    (folder / "dev/null").touch()
    (folder / "dev/null").chmod(0o666)
    # Libraries count processors here.
    for name in ("possible", "present", "online"):
        (folder / "sys/devices/system/cpu" / name).write_text("0\n", encoding="ascii")
    return folder


def shell_command(root: Path, line: str) -> list[str]:
    """Runs a line of shell with `root` as its whole file system, by a user namespace and not by any right."""
    return ["unshare", "--map-root-user", "--mount", "sh", "-c", ENTER, "sh", str(root), line]
