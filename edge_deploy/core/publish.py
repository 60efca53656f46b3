"""Write a folder beside its final place and let it appear in one rename, so that nothing is ever half-written."""

from __future__ import annotations

import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where nothing is swept
    fcntl = None  # type: ignore[assignment]  # asked for before each use

from edge_deploy.core.errors import BadInput

__all__ = ["published_folder"]


@contextmanager
def published_folder(final: Path, *, force: bool = False) -> Iterator[Path]:
    """A new empty folder that becomes `final` when the block ends well, and vanishes when it does not.

    What a killed process has left of an earlier try is taken away first.

    Args:
        force: Replace an existing folder; the old one stays until the new one is complete.

    Raises:
        BadInput: `final` exists and `force` is not set, or cannot be written.
    """
    if final.exists() and not force:
        raise BadInput(f"{final}: exists already; choose another --out or pass --force to replace it.")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        _sweep(final)
        partial = Path(tempfile.mkdtemp(prefix=f".{final.name}.", suffix=".partial", dir=final.parent))
    except OSError as error:
        raise BadInput(f"{final.parent}: cannot be written ({error.strerror}).") from error
    held = _hold(partial)
    try:
        yield partial
        partial.chmod(0o755)
        _swap(partial, final)
    except OSError as error:
        raise BadInput(f"{final}: could not be written ({error.strerror or error}); nothing was kept.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if held is not None:
            os.close(held)


def _sweep(final: Path) -> None:
    """Remove unfinished folders of processes that are gone."""
    for left in final.parent.glob(f".{glob.escape(final.name)}.*.partial"):
        held = _hold(left)
        if held is not None:
            shutil.rmtree(left, ignore_errors=True)
            os.close(held)


def _hold(folder: Path) -> int | None:
    """A lock on a folder that ends with this process; None where another process has it, or there are no such locks."""
    if fcntl is None or not folder.is_dir():
        return None
    opened = os.open(folder, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(opened)
        return None
    return opened


def _swap(partial: Path, final: Path) -> None:
    old = partial.with_name(partial.name + ".old")
    if final.exists():
        final.rename(old)
    try:
        partial.rename(final)
    except OSError:
        if old.exists():
            old.rename(final)
        raise
    shutil.rmtree(old, ignore_errors=True)
