"""The folder is the registry: module names of a package, listed without importing them, and loaded by name."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import pkgutil
from pathlib import Path
from types import ModuleType

from edge_deploy.core.errors import BadInput

__all__ = ["PACKAGES", "check_packages_lie_side_by_side", "load", "names"]

PACKAGES = ("edge_deploy", "converters", "partitioner", "runtimes", "device_tests")


def names(package: str) -> tuple[str, ...]:
    """Names of the modules in `package`, without tests and private ones, e.g. `names("converters.sources")`."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        raise BadInput(f"{package}: no such package.")
    found = (module.name for module in pkgutil.iter_modules(list(spec.submodule_search_locations)))
    return tuple(sorted(name.replace("_", "-") for name in found if not name.endswith("_test") and name[0] != "_"))


def load(package: str, name: str) -> ModuleType:
    """The module of this name.

    Raises:
        BadInput: There is none; close names are suggested.
    """
    known = names(package)
    if name.replace("_", "-") not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}."
        raise BadInput(f"{package.rpartition('.')[2]} {name}: unknown; {hint}")
    return importlib.import_module(f"{package}.{name.replace('-', '_')}")


def check_packages_lie_side_by_side() -> None:
    """Refuse an installation in which one of the five packages is hidden by another folder of the same name.

    Raises:
        BadInput: Names the folder that hides and the one that is hidden.
    """
    home = Path(__file__).resolve().parents[2]
    problems = []
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            problems.append(f"{package}: not found beside {home / 'edge_deploy'}; reinstall edge-deploy.")
        elif Path(spec.origin).resolve().parent != home / package:
            found = Path(spec.origin).resolve().parent
            problems.append(f"{package}: {found} hides {home / package}; start from another folder or rename yours.")
    if problems:
        raise BadInput(*problems)
