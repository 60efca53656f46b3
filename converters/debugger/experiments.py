"""Answers of the float model with some layers' errors added: what each layer costs, and what would be without it.

An error is what a layer of an artifact makes wrong by itself, on the float model's values. Adding it where the layer
stands tells what it does to the answer; errors of all layers together stand for the artifact, up to what errors do to
one another. One pass over the samples: no conversion, no training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from converters.debugger.contracts import Arrays, Rig
from converters.debugger.measure import SiteStatistics, batches

__all__ = ["FLOAT", "Experiment", "Experiments", "in_scale_of", "run_experiments"]

EXACT = 2.0**-24
FLOAT = "float"
"""The choice of a layer that adds nothing but the rounding of what integer layers read of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """Which error each layer adds.

    Attributes:
        choices: Rig of each layer, by its name in `rigs`; FLOAT, or a layer that is missing, for none.
    """

    name: str
    choices: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiments:
    """Answers [samples, values] by the experiment's name, "" for the float model's; and what was seen on the way.

    Attributes:
        statistics: Of each rig's sites, by the rig's name and the layer's.
    """

    answers: Mapping[str, np.ndarray]
    statistics: Mapping[str, Mapping[str, SiteStatistics]]


def run_experiments(rigs: Mapping[str, Rig], samples: Arrays, experiments: Sequence[Experiment]) -> Experiments:
    """Run all experiments in one pass over the samples.

    Args:
        rigs: By name, all with the same float model, up to factors of channels; the first computes the answers.
        samples: Arrays [samples, ...] by source input.

    Raises:
        ToolchainError: A runtime failed.
    """
    first_name, first = next(iter(rigs.items()))
    statistics = {name: {site.layer: SiteStatistics(site=site) for site in rig.sites} for name, rig in rigs.items()}
    answers: dict[str, list[np.ndarray]] = {name: [] for name in ("", *(each.name for each in experiments))}
    for feeds, new in batches(samples, first.batch):
        errors: dict[str, dict[str, np.ndarray]] = {}
        values: Arrays = {}
        for name, rig in rigs.items():
            seen = rig.see(feeds)
            for each in statistics[name].values():
                each.add(seen)
            values = seen.want if name == first_name else values
            errors[name] = {
                layer: error if name == first_name else in_scale_of(error, seen.want.get(layer), values.get(layer))
                for layer, error in seen.own_errors().items()
            }
            if FLOAT not in errors:
                errors[FLOAT] = {}
                for layer, site in ((site.layer, site) for site in rig.sites if site.kind == "layer"):
                    if site.grid is not None and layer in seen.want:
                        errors[FLOAT][layer] = site.grid.rounded(seen.want[layer]) - seen.want[layer]
        plain = first.answer(feeds, {})
        answers[""].append(plain[:new])
        for experiment in experiments:
            chosen = {
                layer: errors[rig][layer]
                for layer, rig in experiment.choices.items()
                if layer in errors.get(rig, {}) and _is_error(errors[rig][layer], values.get(layer))
            }
            answer = first.answer(feeds, chosen) if chosen else plain
            answers[experiment.name].append(answer[:new])
    return Experiments(answers={name: np.concatenate(parts) for name, parts in answers.items()}, statistics=statistics)


def _is_error(error: np.ndarray, value: np.ndarray | None) -> bool:
    """Whether it is more than the rounding of float32."""
    largest = float(np.abs(error).max(initial=0.0))
    return largest > EXACT * (1.0 if value is None else float(np.abs(value).max(initial=0.0)))


def in_scale_of(error: np.ndarray, have: np.ndarray | None, want: np.ndarray | None) -> np.ndarray:
    """An error at a value whose channels another artifact's passes scaled by other factors, as it is under `want`.

    Equalised models compute the same up to a factor for each channel; which axis the channels are on, the values tell.

    Args:
        have: The float model's values where the error was seen.
        want: The same values where it is to be added.
    """
    if have is None or want is None or have.shape != want.shape or np.allclose(have, want, rtol=1e-3, atol=1e-6):
        return error
    for axis in (-1, 1):
        others = tuple(i for i in range(have.ndim) if i != axis % have.ndim)
        power = np.square(have).sum(axis=others, keepdims=True)
        factors = np.where(power > 0, (have * want).sum(axis=others, keepdims=True) / np.maximum(power, 1e-30), 1.0)
        if np.square(have * factors - want).sum() <= 1e-4 * np.square(want).sum():
            found: np.ndarray = error * factors
            return found
    return error
