"""The version of every JSON file that we write, and which files of other versions are read.

The rule, also stated in docs/read-an-artifact.md: a version is MAJOR.MINOR, and a bare number is MAJOR.0.

- A new MINOR only adds fields that old readers may leave aside. Files of every older minor are read (fields that they
  do not have take their defaults), and of every newer one too, without the fields that this version does not know.
- A new MAJOR means that old readers would misunderstand the file. Files of a newer major are refused; for files of an
  older one the new version brings a reader.
"""

from __future__ import annotations

import re
from typing import Any

from edge_deploy.core.errors import BadInput

__all__ = ["CURRENT", "check_schema_version", "version_text"]

CURRENT = (1, 1)
"""1.1 made the version a text; 1.0 was the number 1."""


def version_text(version: tuple[int, int] = CURRENT) -> str:
    """As it stands in a file."""
    return f"{version[0]}.{version[1]}"


def check_schema_version(found: Any, *, where: str, current: tuple[int, int] = CURRENT) -> bool:
    """Whether a file of this version may hold fields that this edge-deploy does not know.

    Raises:
        BadInput: There is no version, or one that this edge-deploy cannot read; says what to do.
    """
    match = re.fullmatch(r"(\d{1,6})(?:\.(\d{1,6}))?", str(found)) if isinstance(found, (int, str)) else None
    if match is None or isinstance(found, bool):
        raise BadInput(
            f"{where}: schema_version {found!r}: must be MAJOR.MINOR, e.g. {version_text(current)!r}; a file of "
            "edge-deploy always has one, so this is another file or a damaged one."
        )
    major, minor = int(match[1]), int(match[2] or 0)
    if major > current[0]:
        raise BadInput(
            f"{where}: schema_version {found}: was written by a newer edge-deploy; this one reads {current[0]}.x. "
            "Upgrade it (pip install --upgrade edge-deploy), or convert again with this version."
        )
    if major < current[0]:
        raise BadInput(
            f"{where}: schema_version {found}: is too old; this edge-deploy reads {current[0]}.x. Convert again, or "
            f"read it with edge-deploy of that time."
        )
    return minor > current[1]
