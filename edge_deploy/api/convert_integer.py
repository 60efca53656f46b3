"""A .tflite file that is full-integer already, as a C project: nothing is quantized here, so nothing is calibrated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from converters.contracts import Lowered
from converters.loading.file_kind import file_kind
from converters.verify import check_outcomes, compare_arrays
from edge_deploy.api.request import ConvertRequest, folder_name
from edge_deploy.core.artifact import MANIFEST, Artifact, Comparison, Verification
from edge_deploy.core.child import run_in_child
from edge_deploy.core.errors import BadInput, Unsupported, VerificationFailed
from edge_deploy.core.quant_spec import QuantSpec, spec_for_recipe
from edge_deploy.core.serde import from_json, write_json
from edge_deploy.core.tensor import TensorInfo
from edge_deploy.core.toolchain import versions

__all__ = ["convert_integer", "is_integer_file"]

SAMPLES = 32
NOTE = "compared bit by bit with the file under the reference kernels, on seeded random inputs"


def is_integer_file(request: ConvertRequest) -> bool:
    """Whether the source is a .tflite file with quantized values, and C is all that is wanted of it."""
    from converters.loading.tflite_facts import check_unquantized
    from runtimes.formats.tflite import lint

    path = Path(request.capture.source)
    if request.targets != ("c",) or file_kind(path) != "tflite":
        return False
    problems = lint(path)
    if problems:
        raise BadInput(*(f"{path}: {problem}" for problem in problems))
    try:
        check_unquantized(path, where=request.capture.source)
    except Unsupported:
        return True
    return False


def convert_integer(request: ConvertRequest, partial: Path, *, progress: Callable[[str], None]) -> Artifact:
    """Write the artifact into a folder of its own in `partial`.

    Raises:
        BadInput: Options that would need the float model; a damaged file.
        Unsupported: Layers in float or without a form in C, by name.
        VerificationFailed: The C code, run here, differs from the reference kernels in any bit.
    """
    _refuse_options(request)
    path = Path(request.capture.source).resolve()
    staged = partial / "c"
    staged.mkdir()
    progress(f"c: lower {path.name}")
    found = run_in_child(
        "edge_deploy.api.convert_integer:lower_here",
        {"path": path, "folder": staged, "name": path.stem},
        stage=f"lowering of {path.name} to c",
    )
    lowered = from_json(Lowered, found, where=path.name)
    spec = _spec(lowered)
    folder = staged.rename(partial / folder_name("c", spec))
    artifact = _artifact(request, lowered, spec, path)
    write_json(artifact, folder / MANIFEST)
    progress(f"{folder.name}: verify")
    verified = replace(artifact, verification=_verified(folder, artifact, path))
    write_json(verified, folder / MANIFEST)
    return verified


def lower_here(path: str, folder: str, name: str) -> Lowered:
    """The child's part of `convert_integer`."""
    from converters.c.from_tflite import lower_integer_file

    return lower_integer_file(Path(path), Path(folder), name=name)


def _refuse_options(request: ConvertRequest) -> None:
    given = (
        ("--calibrate", request.calibrate),
        ("--eval", request.evaluate),
        ("--weights", request.capture.weights),
        ("--features", request.features),
    )
    problems = [
        f"{option}: {request.capture.source} is quantized already; it becomes C bit for bit. Leave the option out, or "
        "give the float model."
        for option, value in given
        if value is not None
    ]
    if problems:
        raise BadInput(*problems)


def _spec(lowered: Lowered) -> QuantSpec:
    """The file's own precision, in the words of a request."""
    narrow = any(outcome.got.startswith("int4") for outcome in lowered.outcomes)
    info = lowered.signatures[0].inputs[0]
    return spec_for_recipe(
        "int4" if narrow else "int8", io="float" if info.dtype == "float32" else "int8", range_method="min-max"
    )


def _artifact(request: ConvertRequest, lowered: Lowered, spec: QuantSpec, path: Path) -> Artifact:
    from converters.loading.tflite_facts import kind_of

    signature = lowered.signatures[0]
    outputs = signature.outputs
    if request.labels:
        outputs = (replace(outputs[0], labels=request.labels), *outputs[1:])
    return Artifact(
        name=path.stem,
        format="c",
        spec=spec,
        source=path.name,
        kind=kind_of(path),
        files=lowered.files,
        source_inputs=tuple(_as_real(info) for info in signature.inputs),
        source_outputs=tuple(_as_real(info) for info in signature.outputs),
        signatures=(replace(signature, outputs=outputs),),
        graph=lowered.graph,
        outcomes=lowered.outcomes,
        toolchain={**versions("edge-deploy", "numpy"), **lowered.toolchain},
        minimum_runtime=lowered.minimum_runtime,
        warnings=lowered.warnings,
    )


def _as_real(info: TensorInfo) -> TensorInfo:
    """The real values that a quantized input or output stands for."""
    return replace(info, dtype="float32", scale=(), zero_point=()) if info.scale else info


def _verified(folder: Path, artifact: Artifact, path: Path) -> Verification:
    from runtimes.formats.facts import read_facts

    check_outcomes(artifact.outcomes, read_facts(folder / artifact.model_file.path))
    found = run_in_child(
        "edge_deploy.api.convert_integer:compare_here",
        {"folder": folder, "path": path},
        stage=f"{folder.name}: run and compare",
    )
    comparison = from_json(Comparison, found, where=folder.name)
    return Verification(comparisons=(comparison,), notes=(NOTE,))


def compare_here(folder: str, path: str) -> Comparison:
    """The child's part of the comparison: both run here, on the same random inputs."""
    from converters.c.graph import read_graph
    from converters.c.vectors import random_inputs
    from runtimes.session import open_session

    ours, theirs = open_session(Path(folder)), open_session(Path(path), kernels="reference", trusted=True)
    inputs = random_inputs(read_graph(Path(path)), SAMPLES, seed=1)
    answers: dict[str, list[np.ndarray]] = {info.name: [] for info in ours.signature.outputs}
    wanted: dict[str, list[np.ndarray]] = {info.name: [] for info in ours.signature.outputs}
    for number in range(SAMPLES):
        own = {info.name: inputs[k][number] for k, info in enumerate(ours.signature.inputs)}
        given = {info.name: inputs[k][number] for k, info in enumerate(theirs.signature.inputs)}
        got, want = ours.run(own), theirs.run(given)
        for mine, other in zip(ours.signature.outputs, theirs.signature.outputs, strict=True):
            answers[mine.name].append(got[mine.name])
            wanted[mine.name].append(want[other.name])
    got_all = {name: np.concatenate(rows) for name, rows in answers.items()}
    want_all = {name: np.concatenate(rows) for name, rows in wanted.items()}
    differing = sum(int((got_all[name] != want_all[name]).sum()) for name in got_all)
    if differing:
        raise VerificationFailed(
            f"{folder}: {differing} of {sum(a.size for a in got_all.values())} output values differ from the reference "
            "kernels; nothing was kept. This is a defect of the generated code: please report the model."
        )
    return compare_arrays(want_all, got_all, kernels=ours.kernels, threads=1, signature=ours.signature.name)
