"""The passes that change a float program before it is calibrated for ExecuTorch, and what they changed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from converters.contracts import LowerRequest
from converters.executorch.calibration import Samples
from converters.executorch.layers import weighted_layers
from converters.executorch.program import example_inputs
from converters.executorch.widths import choose_widths
from converters.passes.equalise_torch import equalise_graph, replace_constants
from edge_deploy.core.errors import Unsupported
from edge_deploy.core.passes import EQUALISE, PassRecord

__all__ = ["change_float_program", "changed_constants", "restore_changes"]

EQUALISED_ON = 256
"""Calibration samples that ranges of channels are taken from, at most."""
_BITS = {"float32": 32, "int8": 8}


def changed_constants(request: LowerRequest) -> Path:
    """Where `change_float_program` leaves the constants that it changed for the artifact in this request's folder."""
    key = hashlib.sha256(str(request.folder).encode()).hexdigest()[:12]
    return request.captured.folder / f"changed-{key}.pt"


def change_float_program(graph: Any, request: LowerRequest) -> tuple[PassRecord, ...]:
    """Equalise the rewritten float graph of a request, in place, where its spec asks for that."""
    import torch

    spec, captured = request.spec, request.captured
    if EQUALISE not in spec.passes or request.calibration is None or spec.activations != "int8":
        return ()
    batch = int(example_inputs(captured.inputs, captured.batches)[0].shape[0])
    samples = Samples(path=request.calibration, inputs=captured.inputs, batch=batch)
    found, changed = equalise_graph(
        graph, samples.batches(most=EQUALISED_ON), _weight_bits(graph, request), weight_scale=spec.weight_scale
    )
    if not found.groups:
        return (PassRecord(name=EQUALISE, applied=False, detail="no set of channels gains"),)
    captured.folder.mkdir(parents=True, exist_ok=True)
    torch.save(changed, changed_constants(request))
    detail = (
        f"{found.groups} sets of channels; largest over smallest range {found.ratio[0]:.1f} -> {found.ratio[1]:.1f}"
    )
    return (PassRecord(name=EQUALISE, applied=True, detail=detail),)


def restore_changes(graph: Any, request: LowerRequest) -> None:
    """Give another copy of the same float graph the constants that the artifact was made from."""
    import torch

    if changed_constants(request).exists():
        replace_constants(graph, torch.load(changed_constants(request), weights_only=True))


def _weight_bits(graph: Any, request: LowerRequest) -> dict[str, int]:
    layers = weighted_layers(graph)
    try:
        choices = choose_widths(layers, request.spec, is_recommender=request.captured.kind == "recommender")
    except (Unsupported, AssertionError):  # told where the whole program is looked at; rules not bound yet
        return {layer.name: min(request.spec.weight_bits, 8) for layer in layers}
    bits = {choice.layer.name: _BITS.get(choice.width, 4) for choice in choices}
    return {name: width for name, width in bits.items() if width < 16}
