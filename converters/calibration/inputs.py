"""Findings on the samples themselves: constant inputs and columns, blank samples, copies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from converters.calibration.finding import Finding
from edge_deploy.core.digest import sample_sha256

__all__ = ["copied_samples", "unvaried_inputs"]

LEAST_VARIATION = 1e-3  # of the largest value: a deviation across samples below this tells the ranges nothing
FEWEST_SAMPLES = 2
MANY_BLANK = 0.1
MANY_COPIES = 0.5
MOST_NAMED = 8


def unvaried_inputs(samples: Mapping[str, np.ndarray]) -> Iterator[Finding]:
    """Inputs that are the same in every sample, constant columns of tables, blank images.

    Args:
        samples: Arrays [samples, ...] by input name.
    """
    for name, array in samples.items():
        if len(array) < FEWEST_SAMPLES or not array.size:
            continue
        flat = array.reshape(len(array), -1).astype(np.float64)
        largest = float(np.abs(flat).max())
        deviations = flat.std(axis=0)
        if float(deviations.max()) == 0.0:
            yield Finding(
                severity="serious",
                kind="constant-input",
                where=name,
                text=f"all {len(array)} samples are the same.",
                remedy="Ranges need inputs as they differ in use: give real samples.",
            )
        elif float(deviations.max()) < LEAST_VARIATION * largest and array.dtype.kind == "f":
            yield Finding(
                severity="warning",
                kind="near-constant-input",
                where=name,
                text=f"values differ by {deviations.max():.3g} between samples (largest value {largest:.3g}).",
                remedy="Check the preprocessing: samples are usually as far apart as their values are large.",
            )
        elif array.ndim == 2 and array.dtype.kind == "f":
            yield from _constant_columns(name, deviations)
        elif array.ndim > 2:
            yield from _blank_samples(name, flat)


def _constant_columns(name: str, deviations: np.ndarray) -> Iterator[Finding]:
    constant = np.flatnonzero(deviations == 0.0)
    if constant.size:
        shown = ", ".join(map(str, constant[:MOST_NAMED])) + (", ..." if constant.size > MOST_NAMED else "")
        yield Finding(
            severity="warning",
            kind="constant-column",
            where=name,
            text=f"{constant.size} of {deviations.size} columns never change: {shown}.",
            remedy="If they do in use, add samples in which they do.",
        )


def _blank_samples(name: str, flat: np.ndarray) -> Iterator[Finding]:
    blank = int((flat.min(axis=1) == flat.max(axis=1)).sum())
    if blank:
        yield Finding(
            severity="warning" if blank > MANY_BLANK * len(flat) else "note",
            kind="blank-samples",
            where=name,
            text=f"{blank} of {len(flat)} samples hold one value only.",
            remedy="Leave out samples that were not recorded or not decoded.",
        )


def copied_samples(samples: Mapping[str, np.ndarray]) -> Iterator[Finding]:
    """Samples that stand in the set more than once, by the digest of all their inputs."""
    count = len(next(iter(samples.values())))
    digests = Counter(sample_sha256({name: array[row] for name, array in samples.items()}) for row in range(count))
    copies = count - len(digests)
    if copies:
        most = max(digests.values())
        yield Finding(
            severity="serious" if copies > MANY_COPIES * count else "warning",
            kind="duplicates",
            where="",
            text=f"{copies} of {count} samples are copies of others (one stands there {most} times).",
            remedy=f"Only {len(digests)} samples tell something: remove the copies and add others.",
        )
