"""Fill in what a file or a generator does not tell, by constants and seeded generators, and record how."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Mapping

import numpy as np

from edge_deploy.core import registry
from edge_deploy.core.conditions import CONDITION_FIELDS, Trace
from edge_deploy.core.errors import BadInput
from edge_deploy.core.units import parse_bits_per_second, parse_seconds
from partitioner.traces.recorded import Recorded, field_named

__all__ = ["DEFAULTS", "GENERATORS", "complete", "generated"]

GENERATORS = "partitioner.traces.generators"
# What is assumed where nothing is told. The link has no default: a load alone does not say how fast a link is.
DEFAULTS = {"rtt_s": 0.05} | {name: 0.0 for name in CONDITION_FIELDS if not name.endswith("_bps") and name != "rtt_s"}


def complete(recorded: Recorded, *, fill: Mapping[str, str], seed: int) -> Trace:
    """The trace with every field.

    Args:
        fill: By field (uplink, rtt, edge_load, ...): a constant with its unit ("20 Mbit/s", "50 ms", "0.3") or the
            name of a generator that makes this field. A field that the file tells is not filled.

    Raises:
        BadInput: `fill` names no field, gives no value, or fills what is told; or nothing tells the link's rate.
    """
    asked = {field_named(name, where="fill"): text for name, text in fill.items()}
    problems = [f"fill {name}: {recorded.source} tells it already." for name in asked if name in recorded.values]
    if problems:
        raise BadInput(*problems)
    values, filled = dict(recorded.values), dict(recorded.derived)
    count = len(recorded.time_s)
    rng = np.random.default_rng(seed)
    made: dict[str, dict[str, np.ndarray]] = {}
    for name, text in asked.items():
        if text.partition(":")[0].replace("_", "-") in registry.names(GENERATORS):
            if text not in made:
                made[text] = generated(text, recorded.time_s, rng, values)
            if name not in made[text]:
                raise BadInput(f"fill {name}: the generator {text} makes {', '.join(made[text])} only.")
            values[name] = made[text][name]
            filled[name] = f"generator {text}, seed {seed}"
        else:
            values[name] = np.full(count, _constant(name, text))
            filled[name] = f"constant {text}"
    if ("uplink_bps" in values) != ("downlink_bps" in values):
        one, other = sorted(("uplink_bps", "downlink_bps"), key=lambda name: name not in values)
        values[other], filled[other] = values[one], f"as {one.removesuffix('_bps')}"
    if "uplink_bps" not in values:
        unread = f", or which of {', '.join(recorded.unread)} it is (--column uplink=NAME:Mbit/s)"
        raise BadInput(
            f"{recorded.source}: tells nothing about the link; say its rate (--fill uplink=20Mbit/s, or "
            f"uplink=markov-link){unread * bool(recorded.unread)}."
        )
    for name in CONDITION_FIELDS:
        if name not in values:
            values[name] = np.full(count, DEFAULTS[name])
            filled[name] = f"constant {DEFAULTS[name]:g}{' s' if name.endswith('_s') else ''}"
    return Trace(
        time_s=recorded.time_s,
        end_s=recorded.end_s,
        values={name: values[name] for name in CONDITION_FIELDS},
        source=recorded.source,
        filled=filled,
        repairs=recorded.repairs,
    )


def generated(
    text: str, time_s: np.ndarray, rng: np.random.Generator, values: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """What one generator makes: "name" or "name:parameter=number,parameter=number".

    Raises:
        BadInput: An unknown generator or parameter, not a number, or a result out of range.
    """
    name, _, rest = text.partition(":")
    module = registry.load(GENERATORS, name)
    known = [
        each.name for each in inspect.signature(module.series).parameters.values() if each.kind is each.KEYWORD_ONLY
    ]
    parameters, problems = {}, []
    for pair in filter(None, rest.split(",")):
        key, _, number = (part.strip() for part in pair.partition("="))
        try:
            parameters[key] = float(number)
        except ValueError:
            problems.append(f"generator {name}: {pair}: must be PARAMETER=NUMBER.")
            continue
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}."
            problems.append(f"generator {name}: {key}: unknown parameter; {hint}")
        elif not math.isfinite(parameters[key]) or parameters[key] < 0:
            problems.append(f"generator {name}: {pair}: must be finite and not negative.")
    if problems:
        raise BadInput(*problems)
    made: dict[str, np.ndarray] = {}
    try:
        with np.errstate(all="ignore"):
            made = module.series(time_s, rng, values, **parameters)
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise BadInput(f"generator {text}: gives values out of range with these parameters ({error}).") from error
    if any(not np.isfinite(array).all() or (array < 0).any() for array in made.values()):
        raise BadInput(f"generator {text}: gives values out of range with these parameters.")
    return made


def _constant(name: str, text: str) -> float:
    where = f"fill {name}"
    if name.endswith("_bps"):
        return parse_bits_per_second(text, where=where)
    if name.endswith("_s"):
        return parse_seconds(text, where=where)
    percent = text.strip().endswith("%")
    try:
        value = float(text.strip().removesuffix("%")) / (100 if percent else 1)
    except ValueError as error:
        known = ", ".join(registry.names(GENERATORS))
        raise BadInput(f"{where} = {text!r}: must be a share such as 0.3 or 30%, or a generator ({known}).") from error
    if not 0 <= value <= 1:
        raise BadInput(f"{where} = {text!r}: a share must be between 0 and 1.")
    return value
