"""Lower one captured model with one target in a child process, where a crash of its toolchain stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from converters.compress.trained_layers import trained_spec
from converters.contracts import Lowered, LowerRequest
from converters.passes.settle import settle_passes, trial_of, with_rules
from edge_deploy.core import registry
from edge_deploy.core.artifact import FileEntry
from edge_deploy.core.child import Child, run_in_child
from edge_deploy.core.digest import file_sha256
from edge_deploy.core.layer_errors import LAYERS, LayerErrors
from edge_deploy.core.passes import PassRecord
from edge_deploy.core.serde import from_json, write_json
from edge_deploy.core.threads import half_the_cores

__all__ = ["lower", "lower_all", "target_child"]

LONGEST_S = 3600.0
LONGEST_STREAM_S = 7 * 24 * 3600.0  # as long as a disk may take
STREAMED = "not compared: it would take a float file as large as the tables, which stay where they are"


def lower(target: str, request: LowerRequest) -> Lowered:
    """Write the files of `request` with the target of this name, e.g. "tflite".

    See `lower_all` for what is raised.
    """
    return lower_all(target, [request])[0]


def target_child(target: str) -> Child:
    """A process that begins to import the toolchain of this target, for `lower_all`.

    Raises:
        BadInput: No such target.
    """
    warm = getattr(registry.load("converters.targets", target), "WARM", ())
    return Child(environment=half_the_cores(), warm=warm)


def lower_all(target: str, requests: Sequence[LowerRequest], *, child: Child | None = None) -> tuple[Lowered, ...]:
    """Lower several precisions with one target, in one child process: its toolchain is loaded once.

    Args:
        child: One of `target_child`, to use instead of a fresh one.

    Raises:
        BadInput: No such target, or the model's weights or calibration data are unusable.
        Unsupported: Layers that cannot become what was asked.
        ToolchainError: A third-party converter failed.
    """
    recipes = ", ".join(request.spec.recipe for request in requests)
    stage = f"lowering of {requests[0].captured.name} to {target} {recipes}"
    arguments = {"target": target, "requests": list(requests)}
    function = "converters.lower:lower_here"
    is_streamed = any(request.captured.is_streamed for request in requests)
    answers = run_in_child(
        function,
        arguments,
        stage=stage,
        environment=half_the_cores(),
        child=child,
        timeout_s=LONGEST_STREAM_S if is_streamed else LONGEST_S,
    )
    return tuple(from_json(Lowered, answer, where=stage) for answer in answers)


def lower_here(target: str, requests: list[Any]) -> list[Lowered]:
    """The child's part of `lower_all`."""
    return [_lower_one(target, request) for request in requests]


def _with_bound(module: Any, record: PassRecord) -> PassRecord:
    """A record that also tells how many calibration samples the target's pass looks at, where not at all of them."""
    most = getattr(module, "PASS_SAMPLES", {}).get(record.name)
    if most is None or not record.applied:
        return record
    bound = f"from {most} calibration samples at most"
    return replace(record, detail=f"{record.detail}; {bound}" if record.detail else bound)


def _lower_one(target: str, request: Any) -> Lowered:
    """Also leaves `layers.json` where the target can tell each layer's error."""
    module = registry.load("converters.targets", target)
    wanted = from_json(LowerRequest, request, where="request")
    wanted = replace(wanted, spec=trained_spec(wanted.spec, wanted.captured.folder))
    trial = trial_of(module)
    if trial is not None and wanted.captured.kind != "recommender":
        wanted, passes = settle_passes(wanted, trial)
        settled: Lowered = module.lower(with_rules(wanted))
        lowered = replace(settled, passes=tuple(_with_bound(module, record) for record in passes))
    else:
        lowered = module.lower(wanted)
    if not wanted.spec.is_float and hasattr(module, "layer_errors"):
        path = wanted.folder / LAYERS
        errors = LayerErrors(layers=(), method=STREAMED) if wanted.captured.is_streamed else module.layer_errors(wanted)
        write_json(errors, path)
        entry = FileEntry(path=LAYERS, role="other", bytes=path.stat().st_size, sha256=file_sha256(path))
        return replace(lowered, files=(*lowered.files, entry))
    return lowered
