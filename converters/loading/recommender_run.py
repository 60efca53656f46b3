"""The float run of a recommender whose tables stay in their files: NumPy reads the rows that the samples ask for."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from converters.contracts import Captured
from converters.loading.float_run import BATCH, run_feeds
from converters.recommender.model import load
from converters.recommender.reference import run_reference

__all__ = ["run_stored"]


def run_stored(captured: Captured, feeds: Path, answers: Path) -> None:
    """See `converters.contracts.Source.run_float`.

    Raises:
        BadInput: The feeds do not fit the model's inputs.
    """
    assert captured.recommender is not None
    model, arrays = load(captured.recommender)
    inputs = tuple(dataclasses.replace(info, shape=(-1, *info.shape[1:])) for info in captured.inputs)

    def call(values: list[np.ndarray]) -> list[np.ndarray]:
        named = {info.name: array for info, array in zip(captured.inputs, values, strict=True)}
        return [run_reference(model, arrays, named, batch=len(values[0]))]

    run_feeds(call, inputs=inputs, outputs=captured.outputs, feeds=feeds, answers=answers, largest_batch=BATCH)
