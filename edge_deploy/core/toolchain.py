"""Versions of the packages that made or ran something, without importing them."""

from __future__ import annotations

from importlib import metadata

__all__ = ["versions"]


def versions(*packages: str) -> dict[str, str]:
    """Installed version of each distribution; absent ones are left out."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
