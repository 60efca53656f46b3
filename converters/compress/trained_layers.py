"""What quantized training of a CNN leaves beside the weights: the scales that targets apply as they are.

They travel inside the `.pt2` file, as one JSON text among torch.export's extra files, and from there beside the
captured program. float32 values survive JSON exactly.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from converters.quantize.uniform import Affine
from edge_deploy.core.passes import FOLD
from edge_deploy.core.quant_spec import QuantSpec
from edge_deploy.core.serde import dumps, loads, read_json, write_json

__all__ = [
    "EXTRA_FILE",
    "TrainedLayers",
    "keep_trained_layers",
    "load_trained_layers",
    "trained_spec",
    "trained_text",
    "usable_layers",
]

EXTRA_FILE = "edge_deploy_trained_layers.json"
FILE = "trained_layers.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedLayers:
    """Scales by layer name.

    Attributes:
        bits: Of all weights in `weight_scales`.
        weight_scales: For each layer a scale for each output channel; its weights lie on that grid exactly.
        activations: For each input and each layer the scale and zero point (int8) of what it computes, a fused
            activation included.
    """

    bits: int
    weight_scales: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    activations: Mapping[str, tuple[float, int]] = field(default_factory=dict)

    def weights(self) -> dict[str, np.ndarray]:
        """float32 [out] by layer."""
        return {layer: np.array(scales, np.float32) for layer, scales in self.weight_scales.items()}

    def affine(self) -> dict[str, Affine]:
        """By input or layer."""
        return {name: Affine(scale=scale, zero_point=zero) for name, (scale, zero) in self.activations.items()}


def trained_text(trained: TrainedLayers) -> str:
    """What stands in the `.pt2` file."""
    return dumps(trained)


def keep_trained_layers(archive: Path, folder: Path) -> None:
    """Lay what stands in a `.pt2` file, where it was trained for this, beside the captured program.

    Raises:
        BadInput: What stands there is damaged.
    """
    with zipfile.ZipFile(archive) as opened:
        found = next((name for name in opened.namelist() if name.endswith(f"/{EXTRA_FILE}")), None)
        if found is None:
            return
        text = opened.read(found).decode("utf-8", errors="replace")
    write_json(loads(TrainedLayers, text, where=f"{archive}: {EXTRA_FILE}"), folder / FILE)


def load_trained_layers(folder: Path) -> TrainedLayers | None:
    """Of a captured program; None where it was not trained for this."""
    path = folder / FILE
    return read_json(TrainedLayers, path) if path.is_file() else None


def usable_layers(folder: Path, spec: QuantSpec) -> TrainedLayers | None:
    """Scales that count under this spec: weights trained for other bits are quantized like any others."""
    trained = load_trained_layers(folder)
    if trained is None or not spec.needs_ranges or spec.weight_bits != trained.bits:
        return None
    return trained


def trained_spec(spec: QuantSpec, folder: Path) -> QuantSpec:
    """The spec without the passes that would change what training has seen."""
    if usable_layers(folder, spec) is None:
        return spec
    return replace(spec, passes=tuple(name for name in spec.passes if name == FOLD))
