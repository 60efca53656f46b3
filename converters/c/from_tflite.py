"""A full-integer .tflite file, of whatever converter, as an artifact folder with a C project."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from converters.c.graph import Graph, read_graph
from converters.c.program import build
from converters.c.project import Sizes, write_project
from converters.c.vectors import reference_vectors
from converters.contracts import Lowered
from edge_deploy.core.artifact import FileEntry, LayerFacts, LayerOutcome, Signature
from edge_deploy.core.digest import file_sha256
from edge_deploy.core.errors import BadInput, Refusal, Unsupported
from edge_deploy.core.toolchain import versions

__all__ = ["MODEL", "SOURCE", "lower_integer_file", "refuse_floats"]

MODEL = "model.c"
SOURCE = "model.tflite"
MINIMUM = "a C99 compiler"


def lower_integer_file(path: Path, folder: Path, *, name: str) -> Lowered:
    """Write the project and the file it comes from into the folder.

    Raises:
        Unsupported: Layers in float or without a form in C, each by name.
        BadInput: Damaged, or with sizes that only a call decides.
        ToolchainError: The reference kernels cannot run the file.
    """
    from runtimes.formats.c_source import read_facts
    from runtimes.formats.tflite import read_graph as read_layers
    from runtimes.formats.tflite import read_signatures

    graph = read_graph(path)
    refuse_floats(graph)
    program = build(graph)
    signature = _fixed(read_signatures(path)[0], graph)
    with TemporaryDirectory(prefix="edge-deploy-c-") as scratch:
        vectors = reference_vectors(path, graph, Path(scratch))
    sizes = write_project(program, signature, vectors, folder, name=name)
    (folder / SOURCE).write_bytes(path.read_bytes())
    return Lowered(
        files=tuple(_entry(each) for each in sorted(folder.iterdir())),
        signatures=(signature,),
        graph=read_layers(path),
        outcomes=tuple(_outcome(fact) for fact in read_facts(folder / MODEL)),
        toolchain=versions("ai-edge-litert", "flatbuffers"),
        minimum_runtime=MINIMUM,
        warnings=(_sizes_note(sizes),),
    )


def refuse_floats(graph: Graph) -> None:
    """Refuse a file whose layers compute in float.

    Raises:
        Unsupported: Names the layers.
    """
    refusals = []
    for node in graph.nodes:
        kinds = {t.dtype for t in (*node.inputs, *node.outputs) if t is not None}
        if kinds & {"float32", "float16"} and node.op not in ("QUANTIZE", "DEQUANTIZE"):
            refusals.append(
                Refusal(
                    layer=node.layer,
                    op=node.op,
                    reason="computes in float",
                    remedy="C projects are full-integer; give the float model with --precision int8 --calibrate DATA",
                )
            )
    if refusals:
        raise Unsupported(refusals=tuple(refusals))


def _fixed(signature: Signature, graph: Graph) -> Signature:
    """The signature with an open batch taken as the file's own size, 1."""

    def fixed(infos: tuple, tensors: tuple) -> tuple:  # type: ignore[type-arg]  # TensorInfo and Tensor, pairwise
        if len(infos) != len(tensors):
            raise BadInput(f"signature {signature.name}: has {len(infos)} values where the graph has {len(tensors)}.")
        return tuple(replace(info, shape=tensor.shape) for info, tensor in zip(infos, tensors, strict=True))

    return replace(
        signature, inputs=fixed(signature.inputs, graph.inputs), outputs=fixed(signature.outputs, graph.outputs)
    )


def _outcome(fact: LayerFacts) -> LayerOutcome:
    width = fact.weight_dtype or "int8"
    return LayerOutcome(
        layer=fact.layer,
        op=fact.op,
        asked=width,
        got=f"{width} {fact.granularity}, {fact.activation_dtype} activations",
        weight_bits=fact.weight_bits,
        weight_bytes=fact.weight_bytes,
        runs_on=fact.runs_on,
    )


def _entry(path: Path) -> FileEntry:
    role = "model" if path.name == MODEL else "other"
    return FileEntry(path=path.name, role=role, bytes=path.stat().st_size, sha256=file_sha256(path))  # type: ignore[arg-type]  # one of two


def _sizes_note(sizes: Sizes) -> str:
    return (
        f"the C project takes {sizes.arena_bytes} bytes of RAM for values and {sizes.flash_bytes} bytes of flash for "
        "constants, its code apart"
    )
