"""The passes that change a float program before it is calibrated for ExecuTorch."""

from __future__ import annotations

from typing import Any

from converters.contracts import LowerRequest
from converters.executorch.calibration import Samples
from converters.executorch.layers import weighted_layers
from converters.executorch.program import example_inputs
from converters.executorch.stacking import stacked
from converters.executorch.widths import choose_widths
from converters.passes.equalise_torch import equalise_graph
from converters.passes.kept_changes import Changes, write_changes
from edge_deploy.core.errors import Unsupported
from edge_deploy.core.passes import EQUALISE, FOLD, PassRecord

__all__ = ["change_float_program"]

EQUALISED_ON = 128
"""Calibration samples that ranges of channels are taken from, at most."""
_BITS = {"float32": 32, "int8": 8}


def change_float_program(graph: Any, request: LowerRequest) -> tuple[PassRecord, ...]:
    """Equalise the rewritten float graph of a request, in place, where its spec asks for that."""
    spec, captured = request.spec, request.captured
    is_folded = FOLD in spec.passes
    if not is_folded and spec.needs_ranges:
        write_changes(request.folder, Changes(is_folded=False))
    if EQUALISE not in spec.passes or request.calibration is None or spec.activations != "int8":
        return ()
    batch = int(example_inputs(captured.inputs, captured.batches)[0].shape[0])
    samples = Samples(path=request.calibration, inputs=captured.inputs, batch=batch)
    bits = _weight_bits(graph, request)
    with stacked(graph, samples) as together:
        some = together.batches(most=EQUALISED_ON)
        found, factors = equalise_graph(graph, some, bits, weight_scale=spec.weight_scale)
    if not found.groups:
        return (PassRecord(name=EQUALISE, applied=False, detail="no set of channels gains"),)
    write_changes(request.folder, Changes(is_folded=is_folded, factors=factors))
    detail = (
        f"{found.groups} sets of channels; largest over smallest range {found.ratio[0]:.1f} -> {found.ratio[1]:.1f}"
    )
    return (PassRecord(name=EQUALISE, applied=True, detail=detail),)


def _weight_bits(graph: Any, request: LowerRequest) -> dict[str, int]:
    layers = weighted_layers(graph)
    try:
        choices = choose_widths(layers, request.spec, is_recommender=request.captured.kind == "recommender")
    except (Unsupported, AssertionError):  # told where the whole program is looked at; rules not bound yet
        return {layer.name: min(request.spec.weight_bits, 8) for layer in layers}
    bits = {choice.layer.name: _BITS.get(choice.width, 4) for choice in choices}
    return {name: width for name, width in bits.items() if width < 16}
