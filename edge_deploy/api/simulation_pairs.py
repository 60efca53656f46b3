"""Which pair of profiles belongs to which artifact: a profile knows the file that it was made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edge_deploy.api.cuts import ModelToCut, model_to_cut
from edge_deploy.core.errors import BadInput
from edge_deploy.core.profile import PROFILE, ModelProfile
from edge_deploy.core.serde import read_json

__all__ = ["pair_up"]


def pair_up(
    artifacts: Sequence[Path | str], pairs: Sequence[tuple[Path | str, Path | str]]
) -> tuple[tuple[Path, Path, Path], ...]:
    """Artifact, edge profile and cloud profile of every model on every pair of devices, in the order of the artifacts.

    With one artifact all pairs are its own; among several, digest and layers say whose a profile is.

    Raises:
        BadInput: A pair belongs to no artifact, its two profiles to different ones, or an artifact has no pair.
    """
    if not artifacts or not pairs:
        raise BadInput("simulate: needs an artifact and a pair of profiles (--edge and --cloud, or --pair).")
    files = [(Path(artifact), Path(edge), Path(cloud)) for artifact in artifacts for edge, cloud in pairs]
    if len(artifacts) == 1:
        return tuple(files)
    profiles = {path: _read(path) for path in dict.fromkeys(path for _, *both in files for path in both)}
    models = {
        Path(artifact): {batch: model_to_cut(artifact, batch=batch) for batch in {p.batch for p in profiles.values()}}
        for artifact in artifacts
    }
    found = [
        (artifact, edge, cloud)
        for artifact, edge, cloud in files
        if all(_belongs(profiles[path], models[artifact][profiles[path].batch]) for path in (edge, cloud))
    ]
    used = {(edge, cloud) for _, edge, cloud in found}
    problems = [
        f"pair {edge},{cloud}: its profiles were not both made of one of the artifacts; they are of "
        f"{profiles[Path(edge)].artifact} and {profiles[Path(cloud)].artifact}."
        for edge, cloud in pairs
        if (Path(edge), Path(cloud)) not in used
    ]
    problems += [
        f"artifact {artifact}: no pair of profiles was made of it; add --pair EDGE,CLOUD (`edge-deploy profile`)."
        for artifact in artifacts
        if not any(Path(artifact) == mine for mine, _, _ in found)
    ]
    if problems:
        raise BadInput(*problems)
    return tuple(found)


def _read(path: Path) -> ModelProfile:
    return read_json(ModelProfile, path / PROFILE if path.is_dir() else path)


def _belongs(profile: ModelProfile, model: ModelToCut) -> bool:
    if profile.sha256:
        return profile.sha256 == model.sha256
    return set(profile.layer_s) == {layer.name for layer in model.graph.layers}
