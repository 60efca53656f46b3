"""Bytes of a trace out of what holds them: a plain file, one compressed with gzip, xz or bzip2, or an archive."""

from __future__ import annotations

import bz2
import fnmatch
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from edge_deploy.core.errors import BadInput

__all__ = ["members", "read_text"]

# A trace is text of a few megabytes; more than this unpacked is a mistake or an attack.
MOST_BYTES = 512 * 1024 * 1024
SHOWN_MEMBERS = 8
_COMPRESSED: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"\xfd7zXZ\x00": lzma.open, b"BZh": bz2.open}


def read_text(path: Path, *, member: str | None = None) -> tuple[str, str]:
    """The text of a trace file and the name it goes by, without the suffix of its compression.

    Args:
        member: Which file of an archive: its path in there, its bare name, or a pattern that fits one of them.

    Raises:
        BadInput: No such file or member, an archive without `member` that holds several, damaged, or not text.
    """
    data, name = _unpacked(path)
    archive = _archive(data)
    if archive is None:
        if member is not None:
            raise BadInput(f"{path}: not an archive, so it has no member {member}.")
        return _decoded(data, str(path)), name
    with archive:
        known = _files(archive)
        chosen = _choose(path, known, member)
        return _decoded(_member_bytes(archive, chosen, f"{path}::{chosen}"), f"{path}::{chosen}"), (
            f"{path.name}::{chosen}"
        )


def members(path: Path) -> tuple[str, ...]:
    """Files in an archive, in its order; empty for a file that is no archive.

    Raises:
        BadInput: The file is missing or damaged.
    """
    archive = _archive(_unpacked(path)[0])
    if archive is None:
        return ()
    with archive:
        return tuple(_files(archive))


def _unpacked(path: Path) -> tuple[bytes, str]:
    try:
        with path.open("rb") as file:
            head = file.read(6)
        for magic, opener in _COMPRESSED.items():
            if head.startswith(magic):
                with opener(path, "rb") as packed:
                    data = packed.read(MOST_BYTES + 1)
                name = path.stem
                break
        else:
            with path.open("rb") as file:
                data = file.read(MOST_BYTES + 1)
            name = path.name
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise BadInput(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}).") from error
    _check_size(len(data), str(path))
    return data, name


def _check_size(size: int, where: str) -> None:
    if size > MOST_BYTES:
        raise BadInput(f"{where}: more than {MOST_BYTES // 2**20} MiB unpacked: not a trace.")


def _archive(data: bytes) -> tarfile.TarFile | zipfile.ZipFile | None:
    if data[:4] == b"PK\x03\x04":
        return zipfile.ZipFile(io.BytesIO(data))
    # A tar file says so at byte 257; without that, text could be taken for an old tar header.
    if data[257:262] == b"ustar":
        return tarfile.open(fileobj=io.BytesIO(data))
    return None


def _files(archive: tarfile.TarFile | zipfile.ZipFile) -> list[str]:
    try:
        if isinstance(archive, zipfile.ZipFile):
            return [info.filename for info in archive.infolist() if not info.is_dir()]
        return [info.name for info in archive.getmembers() if info.isfile()]
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise BadInput(f"archive of traces: damaged ({error}).") from error


def _choose(path: Path, known: list[str], member: str | None) -> str:
    if member is None:
        if len(known) == 1:
            return known[0]
        shown = ", ".join(known[:SHOWN_MEMBERS]) + (", ..." if len(known) > SHOWN_MEMBERS else "")
        raise BadInput(f"{path}: an archive of {len(known)} files; name one, e.g. {path}::{known[0]} ({shown})."
                       if known else f"{path}: an archive without files.")  # fmt: skip
    exact = [name for name in known if member in (name, PurePosixPath(name).name)]
    found = exact or [name for name in known if fnmatch.fnmatch(name, member)]
    if len(found) != 1:
        what = f"{len(found)} files fit" if found else "no file fits"
        shown = ", ".join((found or known)[:SHOWN_MEMBERS])
        raise BadInput(f"{path}: {what} {member}; {'they are' if found else 'it holds'}: {shown}.")
    return found[0]


def _member_bytes(archive: tarfile.TarFile | zipfile.ZipFile, name: str, where: str) -> bytes:
    try:
        if isinstance(archive, zipfile.ZipFile):
            _check_size(archive.getinfo(name).file_size, where)
            return archive.read(name)
        info = archive.getmember(name)
        _check_size(info.size, where)
        file = archive.extractfile(info)
        return b"" if file is None else file.read()
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, RuntimeError) as error:
        raise BadInput(f"{where}: cannot be read ({error}).") from error


def _decoded(data: bytes, where: str) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{where}: not UTF-8 text (byte {error.start}); a trace is a text file.") from error
    if "\x00" in text:
        raise BadInput(f"{where}: holds NUL bytes; a trace is a text file.")
    if not text.strip():
        raise BadInput(f"{where}: empty.")
    return text
