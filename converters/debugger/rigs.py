"""The rig for an artifact: which float model its layers are compared with, and how."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from converters.contracts import Captured, LowerRequest
from converters.debugger.contracts import Rig
from converters.recommender.model import load
from edge_deploy.core.artifact import LayerOutcome
from edge_deploy.core.errors import Unsupported
from edge_deploy.core.quant_spec import QuantSpec, spec_for_recipe

__all__ = ["bits_of", "open_recommender", "open_rig"]


def open_rig(
    captured: Captured,
    folder: Path,
    target: str,
    spec: QuantSpec,
    outcomes: tuple[LayerOutcome, ...],
    work: Path,
    *,
    samples: int,
) -> Rig:
    """The float model of `captured` beside the files in `folder`.

    Args:
        target: "tflite" or "executorch".
        outcomes: What the layers of the artifact became.
        work: Empty folder for intermediate files.
        samples: How many will be run; a recommender's are run at once.

    Raises:
        Unsupported: A format whose layers cannot be looked at.
        BadInput: A file cannot be read.
        ToolchainError: A runtime refuses one.
    """
    if captured.recommender is not None and spec.for_device == "phone":
        return open_recommender(captured, bits_of(outcomes), spec.table_scale, target, samples=samples)
    if target == "tflite":
        return _tflite(captured, folder, spec, work)
    if target == "executorch":
        from converters.debugger.torch_rig import TorchRig

        return TorchRig(captured, folder)
    raise Unsupported(f"{folder}: layers of {target} artifacts cannot be looked at; debug the .tflite they came from.")


def open_recommender(
    captured: Captured, bits: Mapping[str, int], table_scale: Literal["row", "table"], target: str, *, samples: int
) -> Rig:
    """A recognised recommender with these widths, by table and layer."""
    from converters.debugger.recommender_rig import RecommenderRig

    assert captured.recommender is not None, "the caller asks for recommenders only"
    model, arrays = load(captured.recommender)
    return RecommenderRig(model, arrays, bits, table_scale=table_scale, target=target, samples=min(samples, 256))


def bits_of(outcomes: tuple[LayerOutcome, ...]) -> dict[str, int]:
    """The width that each layer's weights really have."""
    words = {"int4": 4, "int8": 8, "float16": 16}
    return {each.layer: words.get(each.got.partition(" ")[0].rstrip(",;:"), 32) for each in outcomes}


def _tflite(captured: Captured, folder: Path, spec: QuantSpec, work: Path) -> Rig:
    from converters.debugger.tflite_rig import TfliteRig
    from converters.passes.kept_changes import restore_tflite
    from converters.targets import tflite
    from converters.tflite.flatbuffer import write_model
    from converters.tflite.quantizer import prepare

    if captured.recommender is not None:
        request = LowerRequest(
            captured=captured, spec=spec_for_recipe("float32", for_device=spec.for_device), folder=work
        )
        tflite.lower(request)
        float_file = work / tflite.MODEL
        file_inputs = captured.inputs
    else:
        float_file = work / "float.tflite"
        file_inputs = captured.inputs
        if captured.float_tflite is None:
            from converters.tflite.from_torch import adapted, float_tflite

            model = prepare(float_tflite(captured, captured.folder))
            file_inputs = tuple(adapted(info) for info in captured.inputs)
        else:
            model = prepare(captured.float_tflite)
        restore_tflite(model, folder)
        write_model(model, float_file)
    return TfliteRig(float_file, folder / tflite.MODEL, captured.inputs, file_inputs, work)
