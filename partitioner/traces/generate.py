"""Traces out of nothing but a seed: generators by name, joined with a plus sign, each with its parameters."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import numpy as np

from edge_deploy.core import registry
from edge_deploy.core.conditions import Trace
from edge_deploy.core.errors import BadInput
from partitioner.traces.fill import GENERATORS, complete, generated
from partitioner.traces.recorded import Recorded

__all__ = ["generate", "generator_parameters"]

MOST_ENTRIES = 50_000_000


def generate(
    name: str, *, seed: int, seconds: float, step_s: float = 1.0, fill: Mapping[str, str] | None = None
) -> Trace:
    """A trace of `seconds`, one entry every `step_s`; the same seed gives the same trace.

    Args:
        name: Generators in the order in which they are applied, e.g. "markov-link+outages+rtt-process+bursts"; each
            may have parameters: "markov-link:low_mbit_s=1,high_mbit_s=20". A later one changes what an earlier one
            made: outages interrupt the link.
        fill: For the fields that none of them makes, as for `read_trace`; the rest is constant.

    Raises:
        BadInput: An unknown generator or parameter, or no generator makes a link and `fill` does not either.
    """
    if not 0 < step_s <= seconds < float("inf") or seconds / step_s > MOST_ENTRIES:
        raise BadInput(
            f"trace {name}: {seconds:g} s in steps of {step_s:g} s: both must be positive, steps no longer "
            f"than the trace, and no more than {MOST_ENTRIES}."
        )
    time_s = np.arange(max(1, int(np.ceil(seconds / step_s - 1e-9)))) * step_s
    rng = np.random.default_rng(seed)
    values: dict[str, np.ndarray] = {}
    for text in name.split("+"):
        values.update(generated(text.strip(), time_s, rng, values))
    recorded = Recorded(time_s=time_s, end_s=float(seconds), values=values, source=f"{name}, seed {seed}")
    return complete(recorded, fill=fill or {}, seed=seed + 1)


def generator_parameters() -> dict[str, dict[str, float]]:
    """The parameters of every generator with their defaults, for listings."""
    found = {}
    for name in registry.names(GENERATORS):
        parameters = inspect.signature(registry.load(GENERATORS, name).series).parameters.values()
        found[name] = {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}
    return found
