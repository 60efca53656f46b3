"""What every source has in common that hands its model over as a float TFLite file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from converters.contracts import Captured
from converters.loading.recommender_file import recognised
from converters.loading.tflite_facts import check_plain, final_operators, kind_of
from edge_deploy.core.tensor import TensorInfo

__all__ = ["captured_from_tflite"]


def captured_from_tflite(
    file: Path,
    *,
    name: str,
    where: str,
    inputs: tuple[TensorInfo, ...],
    batches: tuple[int, ...],
    state: Path,
    notes: tuple[str, ...],
) -> Captured:
    """The model behind a float TFLite file, recognised where it is a recommender.

    Args:
        file: In the folder of the capture, with a signature for each batch size.
        where: The source, as errors name it.
        inputs: Settled inputs in call order; images are NHWC unless they say otherwise.

    Raises:
        Unsupported: The file holds loops, branches, variables or custom operators.
    """
    from runtimes.formats.tflite import read_signatures

    check_plain(file, where=where)
    finals = final_operators(file)
    outputs = tuple(
        replace(
            _with_layout(info),
            shape=(inputs[0].shape[0], *info.shape[1:]),
            meaning="probability" if finals.get(info.name) in ("SOFTMAX", "LOGISTIC") else None,
        )
        for info in read_signatures(file)[0].outputs
    )
    inputs = tuple(_with_layout(info) for info in inputs)
    recommender, kind = None, kind_of(file)
    if kind == "recommender":
        recommender, inputs = recognised(file, inputs, file.parent / "recommender")
    return Captured(
        name=name,
        framework="keras",
        kind=kind,
        folder=file.parent,
        inputs=inputs,
        outputs=outputs,
        batches=batches,
        float_tflite=file,
        recommender=recommender,
        state=state,
        notes=notes,
    )


def _with_layout(info: TensorInfo) -> TensorInfo:
    return replace(info, layout=info.layout or "NHWC") if len(info.shape) == 4 else info
