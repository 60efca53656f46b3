"""Recognise a recommender in a float TFLite file, such as Keras models become, by way of a torch program."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from converters.recommender.model import Recommender
from converters.recommender.recognise import recognise
from edge_deploy.core.errors import BadInput, Unsupported
from edge_deploy.core.require import require
from edge_deploy.core.tensor import TensorInfo

if TYPE_CHECKING:
    import numpy as np

__all__ = ["recognise_tflite"]


def recognise_tflite(path: Path, inputs: tuple[TensorInfo, ...]) -> tuple[Recommender, dict[str, np.ndarray]] | None:
    """The recommender in the file's first signature, in terms of the source's `inputs`; None when it is none of ours.

    What is recognised at the file's batch size holds for any other: every sample is computed alike.

    Args:
        inputs: Of the source; matched with the signature's by name, else by position.

    Raises:
        MissingExtra: torch is not installed.
    """
    torch = require("torch", extra="export-tflite")
    from converters.importers.tflite_graph import import_module
    from converters.tflite.signatures import match_inputs
    from runtimes.formats.tflite import read_signatures

    try:
        signature = read_signatures(path)[0]
        sources = match_inputs(signature, inputs)
        # The signature's key is "main" for a file without any, which the importer takes as none.
        module = import_module(path, signature=None if signature.name == "main" else signature.name)
    except (BadInput, Unsupported):
        return None
    fixed = tuple(
        replace(info, name=sources[info.name].name, shape=tuple(1 if size == -1 else size for size in info.shape))
        for info in signature.inputs
    )
    examples = tuple(torch.zeros(info.shape, dtype=getattr(torch, info.dtype)) for info in fixed)
    found = recognise(torch.export.export(module, examples), fixed)
    if found is None:
        return None
    model, arrays = found
    bounds = {info.name: info.id_bounds for info in model.inputs}
    informed = tuple(replace(info, id_bounds=bounds[info.name]) for info in inputs)
    batch = inputs[0].shape[0]
    shape = (batch, *model.output.shape[1:]) if model.output.shape else ()
    return replace(model, inputs=informed, output=replace(model.output, shape=shape)), arrays
