"""torch.export archives (`.pt2`): the program is taken as it is, its dynamic dimensions settled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from converters.compress.trained_layers import keep_trained_layers
from converters.contracts import Captured, CaptureRequest
from converters.loading.file_kind import file_kind
from converters.loading.input_shapes import settle
from converters.loading.torch_captured import finish, run_program
from converters.loading.torch_program import (
    check_batch_bounds,
    export_program,
    flat_program,
    load_program,
    user_inputs,
    with_layout,
)
from edge_deploy.core.errors import BadInput

__all__ = ["WARM", "accepts", "capture", "run_float"]

WARM = ("torch",)
"""What a process that captures may import before it is asked to."""


def accepts(request: CaptureRequest) -> bool:
    """Whether the file is a torch.export archive."""
    return file_kind(Path(request.source)) == "pt2"


def capture(request: CaptureRequest, folder: Path) -> Captured:
    """Load the program; export it again where a dimension must be fixed or its arguments are nested.

    Raises:
        BadInput: The file is damaged, dimensions stay open, or a batch is outside the program's own bounds.
        Unsupported: Inputs or outputs that are no tensors, embedding bags that cannot be rewritten.
    """
    path = Path(request.source).resolve()
    if request.weights is not None:
        raise BadInput(f"--weights {request.weights}: a .pt2 file brings its own weights; leave the option out.")
    program = load_program(path)
    keep_trained_layers(path, folder)
    found = user_inputs(request.source, program)
    inputs = with_layout(settle(found, request))
    is_dynamic = inputs[0].shape[0] == -1
    batches = request.batches if is_dynamic else (inputs[0].shape[0],)
    check_batch_bounds(request.source, program, batches)
    flat: Any = flat_program(program)
    if flat is not None or any(info.shape != own.shape for info, own in zip(inputs, found, strict=True)) or is_dynamic:
        module = flat if flat is not None else program.module(check_guards=False)
        program = export_program(request.source, module, inputs, batches)
    return finish(request.source, path.stem, program, inputs=inputs, batches=batches, folder=folder)


def run_float(captured: Captured, feeds: Path, answers: Path) -> None:
    """Run the exported program in eager mode.

    Raises:
        BadInput: The feeds do not fit.
    """
    run_program(captured, feeds, answers)
