"""Make a PyTorch module from "package.module:factory". The factory is the user's own code and is trusted: it runs."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_deploy.core.errors import BadInput
from edge_deploy.core.require import require

if TYPE_CHECKING:
    from torch import nn

__all__ = ["is_factory", "make_module"]


def is_factory(source: str) -> bool:
    """Whether `source` reads as package.module:factory."""
    return re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", source) is not None


def make_module(source: str, search_path: tuple[str, ...] = ()) -> nn.Module:
    """Import the module part, and call the factory part without arguments where it is not a module instance already.

    Args:
        search_path: Folders to import from, before the current folder and the usual ones.

    Raises:
        BadInput: The import fails, there is no such name, or it does not make an nn.Module.
    """
    torch = require("torch", extra="export-tflite")
    path, _, name = source.partition(":")
    for folder in reversed((*search_path, str(Path.cwd()))):
        sys.path.insert(0, folder)
    try:
        made: Any = importlib.import_module(path)
    except Exception as error:  # whatever the user's module raises while it is imported
        searched = ", ".join((*search_path, "the current folder"))
        raise BadInput(
            f"--source {source}: importing {path} failed: {_told(error)}. Searched: {searched}, installed packages."
        ) from error
    for part in name.split("."):
        if not hasattr(made, part):
            close = difflib.get_close_matches(part, [key for key in vars(made) if not key.startswith("_")], n=1)
            hint = f"did you mean {close[0]}?" if close else "check the name behind the colon."
            raise BadInput(f"--source {source}: {path} has no {part}; {hint}")
        made = getattr(made, part)
    if not isinstance(made, torch.nn.Module):
        made = _call(source, made)
    if not isinstance(made, torch.nn.Module):
        raise BadInput(f"--source {source}: made a {type(made).__name__}: must be, or return, a torch.nn.Module.")
    return made


def _call(source: str, factory: Any) -> Any:
    if not callable(factory):
        raise BadInput(
            f"--source {source}: is a {type(factory).__name__}: must be a function, a class or an nn.Module."
        )
    try:
        needed = [
            parameter.name
            for parameter in inspect.signature(factory).parameters.values()
            if parameter.default is parameter.empty
            and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        ]
    except (TypeError, ValueError):
        needed = []
    if needed:
        raise BadInput(f"--source {source}: needs arguments ({', '.join(needed)}): name a function that takes none.")
    try:
        return factory()
    except Exception as error:  # whatever the user's factory raises
        raise BadInput(f"--source {source}: the factory failed: {_told(error)}.") from error


def _told(error: Exception) -> str:
    """Type and text of an error in the user's code, with the place of its last line."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    text = str(error).strip().rstrip(".")
    return f"{type(error).__name__}: {text} ({Path(frame.filename).name}, line {frame.lineno})"
