"""The items of a data set as bytes that are read when asked for: files of a folder, of an archive, rows of an image."""

from __future__ import annotations

import fnmatch
import io
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from edge_deploy.core.errors import BadInput
from edge_deploy.core.require import require
from edge_deploy.zoo.description import Items, resolve

__all__ = ["Item", "find_items"]

_IN_MEMORY_BYTES = 64 << 20
"""What is unpacked is kept in memory up to this size, then in a temporary file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One item: the name of its file within folder or archive, and how to read its bytes."""

    name: str
    read: Callable[[], bytes]


def find_items(items: Items, folder: Path) -> list[Item]:
    """All items in the order of their files (folders: by name; archives: as packed).

    Raises:
        BadInput: Nothing is there, or an archive is damaged.
    """
    paths = (items.path,) if isinstance(items.path, str) else items.path
    found: list[Item] = []
    for text in paths:
        path = resolve(text, folder)
        try:
            found += [item for item in _open(path) if _fits(item.name, items.pattern)]
        except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, OSError) as error:
            raise BadInput(f"{path}: cannot be read ({type(error).__name__}: {error}).") from error
    if items.decode == "rows":
        found = [row for item in found for row in _rows(item)]
    if not found:
        raise BadInput(f"{', '.join(paths)}: holds no item that fits {items.pattern!r}.")
    return found


def _fits(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(PurePosixPath(name).name, pattern)


def _open(path: Path) -> Iterator[Item]:
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file():
                yield Item(name=file.relative_to(path).as_posix(), read=file.read_bytes)
    elif zipfile.is_zipfile(path):
        archive = zipfile.ZipFile(path)
        for entry in archive.infolist():
            if not entry.is_dir():
                yield Item(name=entry.filename, read=partial(archive.read, entry))
    elif tarfile.is_tarfile(path):
        yield from _open_tar(path)
    else:
        yield Item(name=path.name, read=path.read_bytes)


def _open_tar(path: Path) -> Iterator[Item]:
    """Items as spans of one file: of the archive itself, or of what a compressed one unpacks to."""
    compressed = True
    try:
        with tarfile.open(path, "r:"):
            compressed = False
    except tarfile.ReadError:
        pass
    spool: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES) if compressed else path.open("rb")  # noqa: SIM115
    with tarfile.open(path, "r|*" if compressed else "r:") as archive:
        for member in archive:
            if not member.isfile():
                continue
            offset = member.offset_data
            if compressed:
                content = archive.extractfile(member)
                assert content is not None
                offset = spool.seek(0, 2)
                spool.write(content.read())
            yield Item(name=member.name, read=partial(_span, spool, offset, member.size))


def _span(file: IO[bytes], offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def _rows(item: Item) -> Iterator[Item]:
    """The rows of an image, each the bytes of its pixels."""
    image = require("PIL.Image", extra="datasets")
    try:
        with image.open(io.BytesIO(item.read())) as picture:
            width, height, channels = picture.width, picture.height, len(picture.getbands())
            pixels = picture.tobytes()
    except (OSError, ValueError) as error:
        raise BadInput(f"{item.name}: is no readable image ({error}).") from error
    size = width * channels
    # spooled, for rows of all images are read in an order of their own
    spool = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115  # lives as long as its items
    spool.write(pixels)
    for row in range(height):
        yield Item(name=f"{item.name}:{row}", read=partial(_span, spool, row * size, size))
