"""Import a heavy or optional library inside the function that needs it, or say which extra brings it."""

from __future__ import annotations

import importlib
from types import ModuleType

from edge_deploy.core.errors import MissingExtra

__all__ = ["require"]


def require(module: str, *, extra: str) -> ModuleType:
    """Import `module`.

    Raises:
        MissingExtra: It is not installed; the message carries the pip command of the `extra` that brings it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and not module.startswith(error.name.split(".")[0]):
            hint = f"pip install 'edge-deploy[{extra}]'"
            raise MissingExtra(f"{module} is installed but misses {error.name}: {hint}") from error
        raise MissingExtra(f"{module} is not installed: pip install 'edge-deploy[{extra}]'") from error
