"""What would mend an artifact, as a recipe and one command that can be pasted."""

from __future__ import annotations

import glob
import json
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from converters.contracts import CaptureRequest
from converters.debugger.finding import Diagnosis, LayerDiagnosis, WhatIf
from edge_deploy.core.errors import BadInput
from edge_deploy.core.quant_spec import LayerRule, QuantSpec
from edge_deploy.core.tensor import TensorInfo
from edge_deploy.zoo.description import find_description

__all__ = ["choose_change", "convert_command", "recipe_text", "source_arguments", "with_layers"]

CLOSE_DB = 0.5  # of two remedies that help equally, the one that costs fewer bytes
WIDTHS = {"int8": 8, "float32": 32}


def choose_change(diagnosis: Diagnosis) -> tuple[LayerDiagnosis, WhatIf] | None:
    """The one layer at another precision that is expected to help most; None where none is expected to help."""
    options = [(layer, what_if) for layer in diagnosis.layers for what_if in layer.what_if]
    if not options:
        return None
    best = max(what_if.likeness.snr_db for _, what_if in options)
    if best <= diagnosis.estimated.snr_db:
        return None
    close = [option for option in options if option[1].likeness.snr_db >= best - CLOSE_DB]
    return min(close, key=lambda option: (WIDTHS[option[1].precision], -option[1].likeness.snr_db))


def with_layers(spec: QuantSpec, changes: Sequence[tuple[str, int]]) -> QuantSpec:
    """The same spec with other weight bits for some layers, by name."""
    rules = tuple(LayerRule(pattern=glob.escape(layer), weight_bits=bits) for layer, bits in changes)
    return replace(spec, rules=(*spec.rules, *rules))


def recipe_text(spec: QuantSpec, comment: str) -> str:
    """A spec's precision and rules as convert's --recipe reads them from a TOML file."""
    lines = [f"# {line}" for line in comment.splitlines()] + [f"precision = {json.dumps(spec.recipe)}"]
    if spec.weight_scale != "channel":
        lines.append(f"weight_scale = {json.dumps(spec.weight_scale)}")
    for rule in spec.rules:
        lines += ["", "[[rule]]"]
        if rule.pattern != "*":
            lines.append(f"layer = {json.dumps(rule.pattern)}")
        if rule.operators:
            lines.append(f"operator = {json.dumps(list(rule.operators))}")
        for name in ("position", "min_weights", "max_weights", "weight_bits", "activations", "weight_scale"):
            value = getattr(rule, name)
            if value is not None:
                lines.append(f"{name} = {json.dumps(value)}")
    return "\n".join(lines) + "\n"


def convert_command(
    source: CaptureRequest,
    spec: QuantSpec,
    target: str,
    *,
    recipe: Path | None,
    calibrate: Path | None,
    evaluate: Path | None,
    out: Path,
    calibrate_limit: int | None = None,
) -> str:
    """The command line that converts the source with the spec's options.

    Args:
        recipe: File with the precision and rules of layers; None for the spec's precision without any.
    """
    chosen = ["--precision", spec.recipe] if recipe is None else ["--recipe", str(recipe)]
    words = ["edge-deploy", "convert", *source_arguments(source), "--to", target, *chosen]
    if spec.fallback_bits is not None:
        words += ["--fallback", "float32" if spec.fallback_bits == 32 else f"int{spec.fallback_bits}"]
    defaults = QuantSpec(recipe=spec.recipe)
    for option, value, usual in (
        ("--io", spec.io, defaults.io),
        ("--for", spec.for_device, defaults.for_device),
        ("--table-scale", spec.table_scale, defaults.table_scale),
        ("--ranges", spec.range_method, defaults.range_method),
        ("--percentile", f"{spec.percentile:g}", f"{defaults.percentile:g}"),
    ):
        if value != usual:
            words += [option, value]
    words += ["--plain-pte"] if spec.plain_pte else []
    for name in defaults.passes:
        words += ["--without-pass", name] if name not in spec.passes else []
    for name in spec.passes:
        words += ["--with-pass", name] if name not in defaults.passes else []
    words += ["--calibrate", _data(calibrate)] if calibrate is not None else []
    words += ["--calibrate-limit", str(calibrate_limit)] if calibrate is not None and calibrate_limit else []
    words += ["--eval", _data(evaluate)] if evaluate is not None else []
    return shlex.join([*words, "--out", str(out)])


def _data(path: Path) -> str:
    """A data set as convert is told of it: descriptions that come along by their name."""
    try:
        return path.stem if find_description(path.stem) == path else str(path)
    except BadInput:
        return str(path)


def source_arguments(source: CaptureRequest) -> list[str]:
    """How convert is told of a source."""
    is_factory = ":" in source.source and not Path(source.source).exists()
    words = ["--source", source.source] if is_factory else [source.source]
    words += ["--weights", str(source.weights)] if source.weights is not None else []
    for info in source.inputs:
        words += ["--input", _declared(info)]
    for name, shape in (source.shapes or {}).items():
        words += ["--shape", f"{name}:{','.join(map(str, shape))}"]
    for batch in source.batches if source.batches != (1,) else ():
        words += ["--batch", str(batch)]
    return words


def _declared(info: TensorInfo) -> str:
    dtype = "" if info.dtype == "float32" else f":{info.dtype}"
    return f"{info.name}:{','.join(map(str, info.shape))}{dtype}"
