"""What sources that read a model file have in common: its path, kept for the float run, and that run itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from converters.contracts import Captured, CaptureRequest
from converters.loading.float_run import run_feeds
from edge_deploy.core.errors import BadInput
from edge_deploy.core.serde import read_json, write_json

__all__ = ["model_path", "remember", "remembered", "run_model"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    path: Path


def model_path(request: CaptureRequest, kind: str) -> Path:
    """The absolute path of the model that `request` names.

    Args:
        kind: As errors name it, e.g. "a Keras file".

    Raises:
        BadInput: Weights were given, which such a model brings itself.
    """
    if request.weights is not None:
        raise BadInput(f"--weights {request.weights}: {kind} brings its own weights; leave the option out.")
    return Path(request.source).resolve()


def remember(path: Path, folder: Path) -> Path:
    """Keep where the float model lies: the `state` of a `Captured`."""
    state = folder / "source.json"
    write_json(_State(path=path), state)
    return state


def remembered(captured: Captured) -> Path:
    """What `remember` kept."""
    assert captured.state is not None
    return read_json(_State, captured.state).path


def run_model(
    call: Callable[[list[np.ndarray]], Sequence[Any]],
    captured: Captured,
    batches: Sequence[int],
    feeds: Path,
    answers: Path,
) -> None:
    """Run the float model over stacked samples; see `converters.loading.float_run.run_feeds`.

    Args:
        batches: The model's own batch dimension of each input, -1 where dynamic: that lets it run faster than the batch
            that the artifact asked for.

    Raises:
        BadInput: The feeds do not fit.
    """
    inputs = tuple(
        replace(info, shape=(batch, *info.shape[1:])) for info, batch in zip(captured.inputs, batches, strict=True)
    )
    run_feeds(
        lambda arrays: [np.asarray(value) for value in call(arrays)],
        inputs=inputs,
        outputs=captured.outputs,
        feeds=feeds,
        answers=answers,
    )
