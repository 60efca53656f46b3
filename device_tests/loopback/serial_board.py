"""A board at the end of a pseudo terminal: a generated C project with the serial protocol, compiled for this host."""

from __future__ import annotations

import contextlib
import os
import pty
import shutil
import subprocess
import tempfile
import tty
from collections.abc import Iterator
from pathlib import Path

from device_tests.boards.serial_firmware import PROTOCOL, protocol_arguments
from edge_deploy.core.errors import MissingExtra, ToolchainError
from runtimes.formats.c_source import read_signatures

__all__ = ["loopback_board"]

HOST = Path(__file__).with_name("serial_board.c")
SOURCES_LEFT_OUT = ("selftest.c",)


@contextlib.contextmanager
def loopback_board(project: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The path of a terminal that answers, and the process behind it.

    Args:
        project: Folder of a generated C project.

    Raises:
        MissingExtra: There is no C compiler here.
        ToolchainError: The compiler refused the project.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        raise MissingExtra("cc: not installed; apt-get install gcc")
    (signature,) = read_signatures(project / "model.c")
    with tempfile.TemporaryDirectory(prefix="edge-deploy-board-") as folder:
        program = Path(folder, "board")
        sources = [each for each in sorted(project.glob("*.c")) if each.name not in SOURCES_LEFT_OUT]
        command = [
            *(compiler, "-std=c99", "-Wall", "-O1", f"-I{project}", *protocol_arguments(signature)),
            *(str(HOST), str(PROTOCOL), *map(str, sources), "-lm", "-o", str(program)),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        if done.returncode:
            raise ToolchainError(f"cc: refused the board: {done.stderr.strip()[-1500:]}")
        board_end, other_end = pty.openpty()
        tty.setraw(other_end)
        name = os.ttyname(other_end)
        process = subprocess.Popen([str(program)], stdin=board_end, stdout=board_end)
        os.close(board_end)
        try:
            yield name, process
        finally:
            process.kill()
            process.wait()
            os.close(other_end)
