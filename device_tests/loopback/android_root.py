"""A folder that stands for a phone's file system: a shell and small tools, and neither a C library nor Python.

Its processor is this machine's, or an emulated 64-bit ARM core: then programs for ARM that are started in it run under
qemu, by a binfmt_misc of the shell's own user namespace (Linux 6.7). The emulator lies outside the folder and is
mounted where only that namespace sees it; nothing of the machine is changed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from device_tests.transports.qemu_arm64 import CORES, write_root
from edge_deploy.core.errors import MissingExtra

__all__ = ["add_emulator", "make_root", "shell_command"]

TOOLS = "cat chmod cp df echo env false grep head id kill ls mkdir mv rm sh sha256sum sleep tail true uname wc"
ENTER = 'mount --rbind /proc "$1/proc" && exec chroot "$1" /system/bin/sh -c "$2"'
EMULATE = (
    'mount --bind "$3" "$1/emulator" && mount -t binfmt_misc none "$1/formats" && '
    'printf %s "$4" > "$1/formats/register" && '
)
# 64-bit, little endian, a program or a library for aarch64; see the kernel's binfmt-misc.rst.
ARM64 = (
    r":arm64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:"
    r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:/emulator/run:"
)


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


def add_emulator(root: Path, folder: Path, core: str) -> None:
    """Make programs for ARM run in `root` on an emulated core; `folder`, which is new, holds the emulator.

    Raises:
        MissingExtra: qemu-user is not installed.
    """
    qemu = shutil.which("qemu-aarch64")
    if qemu is None:
        raise MissingExtra("qemu-aarch64: not installed; apt-get install --no-install-recommends qemu-user")
    said = subprocess.run(["ldd", qemu], capture_output=True, text=True, check=False, timeout=60).stdout
    libraries = re.findall(r"(/\S+) \(0x", said)
    (folder / "lib").mkdir(parents=True)
    for path in (*libraries, qemu):
        shutil.copyfile(path, folder / "lib" / Path(path).name)
    loader = next((Path(path).name for path in libraries if Path(path).name.startswith("ld-")), None)
    start = f"/emulator/lib/{loader} --library-path /emulator/lib" if loader else ""
    run = f'#!/system/bin/sh\nexec {start} /emulator/lib/{Path(qemu).name} -cpu {core} -L /emulator/root "$@"\n'
    (folder / "run").write_text(run, encoding="ascii")
    for path in (folder / "run", *(folder / "lib").iterdir()):
        path.chmod(0o755)
    write_root(folder / "root", CORES[core], cores=1)
    for name in ("emulator", "formats"):
        (root / name).mkdir()


def shell_command(root: Path, line: str, *, emulator: Path | None = None) -> list[str]:
    """Runs a line of shell with `root` as its whole file system, by a user namespace and not by any right.

    Args:
        emulator: What `add_emulator` made for this root.
    """
    script, more = ENTER, []
    if emulator is not None:
        # The shell asks itself for its processor's name, and it is this machine's.
        script, more, line = EMULATE + ENTER, [str(emulator), ARM64], f"uname() {{ echo aarch64; }}; {line}"
    return ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", str(root), line, *more]
