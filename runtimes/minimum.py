"""Refuse an artifact on a runtime that is known to compute it wrongly."""

from __future__ import annotations

import re

from edge_deploy.core.artifact import Artifact
from edge_deploy.core.errors import Unsupported
from edge_deploy.core.registry import load

__all__ = ["check_minimum_runtime", "is_new_enough"]

# The same interpreter under its newer name; its versions start after the last of the older one.
SUCCESSORS = {"tflite-runtime": "ai-edge-litert"}


def check_minimum_runtime(artifact: Artifact, *, backend: str) -> None:
    """Compare `artifact.minimum_runtime`, e.g. "ai-edge-litert 1.4", with the runtime that is installed.

    Raises:
        Unsupported: Another runtime, or an older version of it.
    """
    module = load("runtimes.backends", backend)
    if not artifact.minimum_runtime or not hasattr(module, "runtime_version"):
        return
    name, version = module.runtime_version()
    if not is_new_enough(name, version, artifact.minimum_runtime):
        raise Unsupported(
            f"artifact {artifact.name}: {name} {version} is installed, it needs {artifact.minimum_runtime} or newer; "
            "older runtimes refuse it or compute it wrongly."
        )


def is_new_enough(name: str, version: str, minimum: str) -> bool:
    """Whether a runtime meets `minimum`: "name version", or several of them with commas, of which one suffices.

    A version that is no number is taken for new enough.
    """
    for alternative in minimum.split(","):
        wanted, _, oldest = alternative.strip().rpartition(" ")
        if not _numbers(oldest):
            wanted, oldest = alternative.strip(), ""
        if SUCCESSORS.get(wanted) == name:
            return True
        have = _numbers(version)
        if wanted == name and (not have or have >= _numbers(oldest)):
            return True
    return False


def _numbers(version: str) -> tuple[int, ...]:
    leading = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in leading.group().split(".")) if leading else ()
