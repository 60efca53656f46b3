"""What is to be cut: an artifact folder with its files as they were written, or a bare `.tflite` from anywhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from converters.splitting.contracts import Parent
from edge_deploy.core.artifact import Artifact, FileEntry, LayerFacts, LayerOutcome, Verification
from edge_deploy.core.digest import file_sha256
from edge_deploy.core.errors import BadInput, Unsupported
from edge_deploy.core.quant_spec import QuantSpec, spec_for_recipe
from edge_deploy.core.tensor import TensorInfo
from edge_deploy.core.toolchain import versions
from runtimes.first_load import first_load
from runtimes.folder import check_files, read_artifact

__all__ = ["open_parent", "real"]


def open_parent(source: Path) -> Parent:
    """Read and check what is to be cut.

    Raises:
        BadInput: Not an artifact nor a `.tflite`, or damaged.
        Unsupported: A `.pte` without its artifact folder: it cannot be cut.
        ToolchainError: The runtime died of a bare file, in a child process.
    """
    if source.is_dir():
        artifact = read_artifact(source)
        check_files(source, artifact)
        return Parent(artifact=artifact, folder=source, digest=artifact.model_file.sha256)
    if not source.is_file():
        raise BadInput(f"{source}: no such file or folder.")
    if source.suffix == ".pte":
        raise Unsupported(
            f"{source}: a .pte cannot be cut; give the artifact folder, whose quantized.pt2 is the program to cut."
        )
    if source.suffix != ".tflite":
        raise BadInput(f"{source}: must be an artifact folder or a .tflite file.")
    artifact = _described(source)
    return Parent(artifact=artifact, folder=source.parent, digest=artifact.model_file.sha256, is_bare=True)


def real(info: TensorInfo) -> TensorInfo:
    """A quantized tensor as the real values it stands for; others as they are."""
    if not info.scale:
        return info
    return replace(info, dtype="float32", scale=(), zero_point=(), quantized_dimension=None)


def _described(path: Path) -> Artifact:
    """A manifest for a file that has none, with nothing in it that the bytes do not say."""
    from runtimes.formats.tflite import lint, read_facts, read_graph, read_signatures

    problems = lint(path)
    if problems:
        raise BadInput(*(f"{path}: {problem}" for problem in problems))
    first_load(path, backend="litert", data_files=())
    signatures, graph, facts = read_signatures(path), read_graph(path), read_facts(path)
    return Artifact(
        name=path.stem,
        format="tflite",
        spec=_as_found(facts),
        source=path.name,
        kind="generic",
        files=(FileEntry(path=path.name, role="model", bytes=path.stat().st_size, sha256=file_sha256(path)),),
        source_inputs=tuple(real(info) for info in signatures[0].inputs),
        source_outputs=tuple(real(info) for info in signatures[0].outputs),
        signatures=signatures,
        graph=graph,
        outcomes=tuple(_outcome(fact) for fact in facts if fact.weight_dtype is not None),
        toolchain=versions("edge-deploy", "numpy"),
        warnings=("cut from a file without a manifest: how it was made is not known",),
        verification=Verification(),
    )


def _as_found(facts: tuple[LayerFacts, ...]) -> QuantSpec:
    """The recipe whose width the narrowest weights have; the file cannot say what was asked."""
    narrowest = min((fact.weight_bits for fact in facts if fact.weight_dtype is not None), default=32.0)
    return spec_for_recipe("float32" if narrowest > 8 else "int8" if narrowest > 4 else "int4")


def _outcome(fact: LayerFacts) -> LayerOutcome:
    assert fact.weight_dtype is not None
    return LayerOutcome(
        layer=fact.layer,
        op=fact.op,
        asked=fact.weight_dtype,
        got=fact.weight_dtype,
        reason="as found in the file that was cut",
        weight_bits=fact.weight_bits,
        weight_bytes=fact.weight_bytes,
        runs_on=fact.runs_on,
    )
