"""Run the commands of the guides in docs/: `make bench-guides` runs all of them, the tests those that take seconds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import edge_deploy

__all__ = ["Block", "blocks", "guides", "run_block"]

DOCS = Path(edge_deploy.__file__).parents[1] / "docs"
_FENCE = re.compile(r"^```sh( long)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Commands between two fences: `line` is that of the first fence."""

    line: int
    is_long: bool
    commands: str


def guides(docs: Path = DOCS) -> tuple[Path, ...]:
    """The guides that have commands to run."""
    return tuple(path for path in sorted(docs.glob("*.md")) if any(blocks(path)))


def blocks(guide: Path) -> Iterator[Block]:
    """The shell blocks of a guide in order."""
    text = guide.read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        yield Block(line=line, is_long=found[1] is not None, commands=found[2])


def run_block(block: Block, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the commands in `folder` with this installation's `python` and `edge-deploy`; the first failure ends it."""
    own = str(Path(sys.executable).parent)
    environment = {
        **os.environ,
        "PATH": os.pathsep.join((own, os.environ.get("PATH", ""))),
        "PYTHONPATH": str(DOCS.parent),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.commands],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def main() -> None:
    """Run every block of every guide and say how long each took."""
    failed = 0
    for guide in guides():
        with tempfile.TemporaryDirectory(prefix="edge-deploy-guide-") as folder:
            for block in blocks(guide):
                start = time.perf_counter()
                done = run_block(block, Path(folder))
                failed += done.returncode != 0
                kind = "long" if block.is_long else ""
                verdict = "ok" if done.returncode == 0 else f"failed ({done.returncode}):\n{done.stderr[-2000:]}"
                print(f"{guide.name}:{block.line} {kind} {time.perf_counter() - start:.1f} s: {verdict}", flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
