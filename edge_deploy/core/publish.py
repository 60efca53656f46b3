"""Write a folder beside its final place and let it appear in one rename, so that nothing is ever half-written."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_deploy.core.errors import BadInput

__all__ = ["published_folder"]


@contextmanager
def published_folder(final: Path, *, force: bool = False) -> Iterator[Path]:
    """A new empty folder that becomes `final` when the block ends well, and vanishes when it does not.

    Args:
        force: Replace an existing folder; the old one stays until the new one is complete.

    Raises:
        BadInput: `final` exists and `force` is not set, or cannot be written.
    """
    if final.exists() and not force:
        raise BadInput(f"{final}: exists already; choose another --out or pass --force to replace it.")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{final.name}.", suffix=".partial", dir=final.parent))
    except OSError as error:
        raise BadInput(f"{final.parent}: cannot be written ({error.strerror}).") from error
    try:
        yield partial
        partial.chmod(0o755)
        _swap(partial, final)
    except OSError as error:
        raise BadInput(f"{final}: could not be written ({error.strerror or error}); nothing was kept.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


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
