"""Say in an artifact where each layer really ran here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edge_deploy.core.artifact import Artifact
from runtimes.placement import observed_placement

__all__ = ["with_placement"]


def with_placement(artifact: Artifact, folder: Path) -> Artifact:
    """The artifact whose layers run on what the runtime's profiler saw; as it is where no profiler is known here."""
    seen = observed_placement(folder / artifact.model_file.path)
    if seen is None:
        return artifact
    outcomes = tuple(replace(each, runs_on=seen.get(each.layer, each.runs_on)) for each in artifact.outcomes)
    return replace(artifact, outcomes=outcomes)
