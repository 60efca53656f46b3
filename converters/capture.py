"""Capture a trained model: find its source, run it in a child process, and get a `Captured` back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from converters.contracts import Captured, CaptureRequest
from converters.loading.file_kind import describe, file_kind
from edge_deploy.core import registry
from edge_deploy.core.child import Child, run_in_child
from edge_deploy.core.errors import BadInput
from edge_deploy.core.serde import from_json
from edge_deploy.core.threads import half_the_cores

__all__ = ["capture", "choose_source", "is_large", "run_float", "source_child"]

SOURCES = "converters.sources"
READABLE = (
    "edge-deploy reads Keras .keras and .h5, SavedModels, ONNX, float .tflite, torch.export .pt2, PyTorch as --source "
    "package.module:factory, and DLRMs as .safetensors, a folder of .npy, or a .toml that describes them"
)
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "TF_ENABLE_ONEDNN_OPTS": "0"}


def source_child(request: CaptureRequest) -> Child:
    """A process in which frameworks run quietly, one call after another; it begins to import the one of `request`.

    Raises:
        BadInput: No source takes the request.
    """
    module = registry.load(SOURCES, choose_source(request))
    return Child(environment={**QUIET, **half_the_cores()}, warm=getattr(module, "WARM", ()))


def is_large(request: CaptureRequest) -> bool:
    """Whether the model may hold tables that stay in their files: memory then counts for more than time.

    Raises:
        BadInput: No source takes the request.
    """
    module = registry.load(SOURCES, choose_source(request))
    return bool(getattr(module, "is_large", lambda _: False)(request))


def capture(request: CaptureRequest, folder: Path, *, child: Child | None = None) -> Captured:
    """Turn a trained model into a `Captured` whose files lie in `folder`; its framework runs in a child process.

    Args:
        child: A process of `source_child`, to use instead of a fresh one.

    Raises:
        BadInput: The file is missing, damaged or of another kind; an input or a weight is not what it must be.
        Unsupported: The model holds what cannot be captured, by layer or operator name.
        ToolchainError: The framework or the stock converter failed, or ended its process.
    """
    source = choose_source(request)
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    answer = run_in_child(
        "converters.capture:capture_in_this_process",
        {"source": source, "request": request, "folder": folder},
        stage=f"capture of {request.source}",
        environment=QUIET,
        child=child,
    )
    return from_json(Captured, answer, where=f"capture of {request.source}")


def run_float(captured: Captured, feeds: Path, answers: Path, *, child: Child | None = None) -> None:
    """Run the float model in its own framework, in a child process.

    Args:
        captured: What `capture` returned.
        feeds: npz with one array per source input, samples stacked on axis 0.
        answers: Where the npz with one array per output is written, samples in the same order.
        child: A process of `source_child`, to use instead of a fresh one: the framework is there already.

    Raises:
        BadInput: The feeds do not fit the model's inputs.
    """
    source = captured.source or ("keras" if captured.program is None else "torch-module")
    run_in_child(
        "converters.capture:run_float_in_this_process",
        {"source": source, "captured": captured, "feeds": feeds.resolve(), "answers": answers.resolve()},
        stage=f"float run of {captured.name}",
        environment=QUIET,
        child=child,
    )


def choose_source(request: CaptureRequest) -> str:
    """Name of the source in `converters.sources` that takes this request.

    Raises:
        BadInput: None does; says what was found and what can be read.
    """
    for name in registry.names(SOURCES):
        if registry.load(SOURCES, name).accepts(request):
            return name
    kind = file_kind(Path(request.source))
    if kind == "missing" and re.fullmatch(r"[\w.]+:[\w.]*", request.source):
        raise BadInput(f"--source {request.source}: must be package.module:factory, names of Python on both sides.")
    raise BadInput(f"{request.source}: {describe(kind)}. {READABLE}.")


def capture_in_this_process(source: str, request: Mapping[str, Any], folder: str) -> Captured:
    """The child's side of `capture`."""
    asked = from_json(CaptureRequest, request, where="capture request")
    captured: Captured = registry.load(SOURCES, source).capture(asked, Path(folder))
    return replace(captured, source=source)


def run_float_in_this_process(source: str, captured: Mapping[str, Any], feeds: str, answers: str) -> None:
    """The child's side of `run_float`."""
    model = from_json(Captured, captured, where="captured model")
    registry.load(SOURCES, source).run_float(model, Path(feeds), Path(answers))
