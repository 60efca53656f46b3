"""Write a large file in parts, hash it while it is written, and go on where an ended process has stopped.

The file grows in a staging folder beside a journal, which tells after every few megabytes how many bytes stood there
and what their sha256 was. A later run with the same key reads what is there, which proves it, and makes only the rest;
one with another key, or over bytes that are not the journal's, begins anew. The finished file moves to its place in one
rename.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from edge_deploy.core.errors import BadInput

__all__ = ["PROGRESS", "Part", "Staging", "made_part", "read_progress", "write_parts"]

JOURNAL_BYTES = 32 << 20
READ_BYTES = 1 << 20
AHEAD = 3  # parts that are made while one is written
PROGRESS_S = 0.5
PROGRESS = "progress.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Bytes that are made when they are written; `make` must give `size` of them, the same ones each time."""

    size: int
    make: Callable[[], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Staging:
    """Where a file grows.

    Attributes:
        key: Says what the bytes are made of; another key begins anew.
    """

    folder: Path
    key: str


def made_part(data: bytes | bytearray) -> Part:
    """Bytes that are there already."""
    return Part(size=len(data), make=lambda: data)


def write_parts(parts: Sequence[Part], path: Path, *, staging: Staging | None = None) -> str:
    """Write the parts one after another, two of them made at a time, and return the file's sha256.

    Raises:
        BadInput: Another process writes the same file, or the disk is full.
    """
    total = sum(part.size for part in parts)
    if staging is None:
        with path.open("wb") as plain:
            return _write(parts, plain, hashlib.sha256(), lambda done, digest: None)
    staging.folder.mkdir(parents=True, exist_ok=True)
    growing, journal = staging.folder / f"{path.name}.part", staging.folder / f"{path.name}.journal"
    with _alone(growing) as file:
        digest, done = _proven(file, journal, staging.key)
        _check_room(staging.folder, total - done, path.name)
        file.truncate(done)
        file.seek(done)
        rest = _behind(parts, done)
        parent, told = os.getppid(), 0.0
        mode = "a" if done else "w"
        with journal.open(mode, encoding="utf-8") as log:
            if not done:
                log.write(json.dumps({"key": staging.key}) + "\n")
            noted = done

            def note(written: int, digest: Any) -> None:
                nonlocal noted, told
                now = done + written
                if os.getppid() != parent:
                    raise BadInput(f"{path.name}: whoever asked for it is gone; the same command goes on from here.")
                if now - noted >= JOURNAL_BYTES:
                    file.flush()
                    log.write(json.dumps({"bytes": now, "sha256": digest.hexdigest()}) + "\n")
                    log.flush()
                    noted = now
                if time.monotonic() - told >= PROGRESS_S:
                    told = time.monotonic()
                    _tell(staging.folder, path.name, now, total, done)

            try:
                found = _write(rest, file, digest, note)
            except OSError as error:
                raise BadInput(f"{growing}: cannot be written ({error.strerror}).") from error
        file.flush()
        growing.replace(path)
    journal.unlink()
    (staging.folder / PROGRESS).unlink(missing_ok=True)
    return found


def _check_room(folder: Path, size: int, name: str) -> None:
    free = shutil.disk_usage(folder).free
    if free < size:
        raise BadInput(f"{name}: {size / 1e6:.0f} MB are to be written, {folder} has room for {free / 1e6:.0f} MB.")


def read_progress(folder: Path) -> str:
    """What a writer last told of itself, e.g. "model.tflite: 120 of 338 MB"; empty where none is at work."""
    try:
        found = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
        again = f", {found['kept'] / 1e6:.0f} MB of them from an earlier run" if found["kept"] else ""
        return f"{found['file']}: {found['done'] / 1e6:.0f} of {found['total'] / 1e6:.0f} MB{again}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _tell(folder: Path, name: str, done: int, total: int, kept: int) -> None:
    partial = folder / f".{PROGRESS}"
    partial.write_text(json.dumps({"file": name, "done": done, "total": total, "kept": kept}), encoding="utf-8")
    partial.replace(folder / PROGRESS)


def _write(parts: Iterable[Part], file: BinaryIO, digest: Any, note: Callable[[int, Any], None]) -> str:
    written = 0
    with ThreadPoolExecutor(2, thread_name_prefix="part") as pool:
        waiting: deque[tuple[Part, Future[Any]]] = deque()
        coming = iter(parts)
        try:
            while True:
                while len(waiting) < AHEAD and (part := next(coming, None)) is not None:
                    waiting.append((part, pool.submit(part.make)))
                if not waiting:
                    break
                part, future = waiting.popleft()
                data = _bytes_of(future.result())
                if len(data) != part.size:
                    raise AssertionError(f"a part of {part.size} bytes gave {len(data)}")
                file.write(data)
                digest.update(data)
                written += len(data)
                del data, future
                note(written, digest)
        finally:
            for _, future in waiting:
                future.cancel()
    found: str = digest.hexdigest()
    return found


def _bytes_of(made: Any) -> Any:
    if isinstance(made, np.ndarray):
        return np.ascontiguousarray(made).reshape(-1).view(np.uint8).data
    return made


def _behind(parts: Sequence[Part], done: int) -> Iterator[Part]:
    """The parts from byte `done` on, which is a border between two of them."""
    at = 0
    for part in parts:
        if at >= done:
            yield part
        at += part.size


def _proven(file: BinaryIO, journal: Path, key: str) -> tuple[Any, int]:
    """The hash of what stands there, and how many bytes of it are the journal's; a fresh hash and 0 without."""
    entries = _entries(journal, key)
    digest, at = hashlib.sha256(), 0
    kept, kept_at = digest.copy(), 0
    for size, wanted in entries:
        while at < size:
            data = file.read(min(READ_BYTES, size - at))
            if not data:
                return kept, kept_at
            digest.update(data)
            at += len(data)
        if digest.hexdigest() != wanted:
            return kept, kept_at
        kept, kept_at = digest.copy(), at
    return kept, kept_at


def _entries(journal: Path, key: str) -> list[tuple[int, str]]:
    try:
        head, *lines = journal.read_text(encoding="utf-8").splitlines()
        if json.loads(head)["key"] != key:
            return []
    except (OSError, ValueError, KeyError, TypeError):
        return []
    found = []
    for line in lines:
        try:
            entry = json.loads(line)
            found.append((int(entry["bytes"]), str(entry["sha256"])))
        except (ValueError, KeyError, TypeError):
            break  # the last line, cut short
    return found


@contextmanager
def _alone(path: Path) -> Iterator[BinaryIO]:
    """The file, open for reading and writing, while no other process of this machine has it."""
    with path.open("r+b" if path.exists() else "w+b") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # Windows; two conversions into one folder are the user's affair there
            pass
        except OSError as error:
            raise BadInput(f"{path}: another process is writing it; wait for it, or choose another --out.") from error
        yield file
