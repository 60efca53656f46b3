"""Refuse an artifact on a runtime that is known to compute it wrongly."""

from __future__ import annotations

import re

from edge_deploy.core.artifact import Artifact
from edge_deploy.core.errors import Unsupported
from edge_deploy.core.registry import load

__all__ = ["check_minimum_runtime", "is_older"]

# The same interpreter under its new name: every version of it is newer than all of the old one.
SUCCESSOR = {"tflite-runtime": "ai-edge-litert"}


def check_minimum_runtime(artifact: Artifact, *, backend: str) -> None:
    """Compare `artifact.minimum_runtime`, e.g. "ai-edge-litert 1.4", with the runtime that is installed.

    Raises:
        Unsupported: Another runtime, or an older version of it.
    """
    module = load("runtimes.backends", backend)
    needed = artifact.minimum_runtime.split()
    if not needed or not hasattr(module, "runtime_version"):
        return
    name, version = module.runtime_version()
    oldest = needed[-1]
    if SUCCESSOR.get(needed[0]) == name:
        return
    if name != needed[0] or is_older(version, oldest):
        raise Unsupported(
            f"artifact {artifact.name}: {name} {version} is installed, it needs {artifact.minimum_runtime} or newer; "
            f"older runtimes refuse it or compute it wrongly: pip install '{needed[0]}>={oldest}'"
        )


def is_older(version: str, oldest: str) -> bool:
    """Whether `version` comes before `oldest`, by their leading numbers; an unknown version does not."""
    have, need = _numbers(version), _numbers(oldest)
    return bool(have) and have < need


def _numbers(version: str) -> tuple[int, ...]:
    leading = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in leading.group().split(".")) if leading else ()
