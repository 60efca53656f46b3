"""What every layer adds to the answer's error at every width: one pass over samples, with the float model's answers.

The errors come from artifacts whose layers all have one width, as the real quantizer wrote them; each is added alone
where its layer stands in the float model. What a layer adds in float is the rounding of what integer layers read of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from converters.contracts import Captured
from converters.debugger.contracts import Rig
from converters.debugger.diagnose import QUIET, Opened
from converters.debugger.experiments import FLOAT, Experiment, run_experiments
from converters.debugger.rigs import bits_of, open_rig
from edge_deploy.core.child import run_in_child
from edge_deploy.core.serde import from_json

__all__ = ["Sensitivity", "Uniform", "measure_sensitivity"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Uniform:
    """A model whose layers have one width wherever they can.

    Attributes:
        bits: That width, below 16.
    """

    bits: int
    opened: Opened


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """Squared error of the answers, summed over samples, by width.

    Attributes:
        signal: Squared answers of the float model.
        noise: By layer, then by bits ("4", "8", "32"); widths that a layer cannot have are missing.
        floor: What stays when all layers with weights are in float.
    """

    samples: int
    signal: float
    noise: dict[str, dict[str, float]]
    floor: float


def measure_sensitivity(captured: Captured, uniform: Sequence[Uniform], feeds: Path, *, limit: int) -> Sensitivity:
    """Look at the first `limit` samples of an npz with one array for each source input.

    Raises:
        BadInput, ToolchainError: As a rig.
    """
    arguments = {"captured": captured, "uniform": list(uniform), "feeds": feeds, "limit": limit}
    answer = run_in_child(
        "converters.search.sensitivity:measure_here",
        arguments,
        stage=f"sensitivity of {captured.name}",
        environment=QUIET,
    )
    return from_json(Sensitivity, answer, where="sensitivity")


def measure_here(captured: Any, uniform: list[Any], feeds: str, limit: int) -> Sensitivity:
    """The child's part of `measure_sensitivity`."""
    model = from_json(Captured, captured, where="captured model")
    found = [from_json(Uniform, each, where="uniform artifact") for each in uniform]
    with np.load(feeds, allow_pickle=False) as archive:
        samples = {info.name: archive[info.name][:limit] for info in model.inputs}
    count = len(next(iter(samples.values())))
    with TemporaryDirectory(prefix="edge-deploy-") as scratch:
        rigs: dict[str, Rig] = {}
        widths: dict[str, dict[str, int]] = {}
        for each in found:
            name, opened = str(each.bits), each.opened
            work = Path(scratch, name)
            work.mkdir()
            rigs[name] = open_rig(
                model, opened.folder, opened.target, opened.spec, opened.outcomes, work, samples=count
            )
            widths[name] = bits_of(opened.outcomes)
        layers = list(dict.fromkeys(layer for bits in widths.values() for layer in bits))
        others = {
            site.layer: next(iter(rigs)) for rig in rigs.values() for site in rig.sites if site.layer not in layers
        }
        # A layer that could not have a width became something else there: that is no option.
        cells = [(layer, name) for layer in layers for name in rigs if widths[name].get(layer) == int(name)]
        experiments = [Experiment(name=f"{name} {layer}", choices={layer: name}) for layer, name in cells]
        experiments += [Experiment(name=f"32 {layer}", choices={layer: FLOAT}) for layer in layers]
        experiments.append(Experiment(name="floor", choices=others))
        run = run_experiments(rigs, samples, experiments)
    want = run.answers[""]

    def noise(name: str) -> float:
        return float(np.square(run.answers[name] - want).sum())

    table: dict[str, dict[str, float]] = {layer: {} for layer in layers}
    for layer, name in [*cells, *((layer, "32") for layer in layers)]:
        table[layer][name] = noise(f"{name} {layer}")
    return Sensitivity(samples=count, signal=float(np.square(want).sum()), noise=table, floor=noise("floor"))
