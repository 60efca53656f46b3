"""Lower an exported program to ExecuTorch files: XNNPACK where it can, portable operators elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.executorch.layers import layer_name
from converters.executorch.needless_patterns import without_needless_patterns
from converters.executorch.program import LAYER
from converters.executorch.recommender_stream import is_table_constant
from edge_deploy.core.artifact import FileEntry
from edge_deploy.core.digest import file_sha256
from edge_deploy.core.errors import ToolchainError
from runtimes.formats.nibble_ptd import Region, pack
from runtimes.formats.ptd_file import named_weights
from runtimes.formats.pte import read_pte
from runtimes.formats.pte_names import NAMES_METHOD, encode_names

__all__ = ["MODEL", "PACKED", "QUANTIZED", "Written", "write_program"]

MODEL, PACKED, QUANTIZED = "model.pte", "model.ptd", "quantized.pt2"
_TAG = "weights"
_DELEGATED_TAG = "delegate_constant_tag"  # what XNNPACK's serializer looks for in a constant's meta["custom"]
_EXPECTED = (RuntimeError, ValueError, TypeError, KeyError, IndexError, AssertionError, AttributeError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The files, and the operators that no delegate took, in order."""

    files: tuple[FileEntry, ...]
    portable: tuple[str, ...]


def write_program(
    program: Any,
    folder: Path,
    *,
    stored4: Collection[str] = (),
    keep: Any = None,
    tables: Callable[[bytes], str] | None = None,
    tables_beside: bool = False,
) -> Written:
    """Write `model.pte`, and `model.ptd` when `stored4` names layers or rows of look-ups go there, into `folder`.

    Args:
        program: The exported program to lower; its operators carry layer names.
        stored4: Layers whose weights lie in [-8, 7] and are stored two to a byte beside the program.
        keep: The exported program to keep as `quantized.pt2`; None keeps none.
        tables: Writes both files from the program's bytes, with the rows of look-ups outside it, and returns the
            sha256 of `model.ptd`.
        tables_beside: The rows of look-ups, if it has any, go to `model.ptd` as they are in the program.

    Raises:
        ToolchainError: ExecuTorch fails.
    """
    import torch

    if keep is not None:
        torch.export.save(keep, folder / QUANTIZED)
    _tag_stored4(program, stored4)
    try:
        made, portable = _lower(program, external=tables is not None or tables_beside)
    except _EXPECTED as error:
        raise ToolchainError(f"ExecuTorch lowering: {type(error).__name__}: {error}") from error
    written = [(MODEL, "model")]
    digests = {}
    if tables is not None:
        digests[PACKED] = tables(bytes(made.buffer))
        written.append((PACKED, "data"))
    else:
        with (folder / MODEL).open("wb") as file:
            made.write_to_file(file)
    if tables_beside:
        made.write_tensor_data_to_file(str(folder))
        if (folder / f"{_TAG}.ptd").is_file():
            (folder / f"{_TAG}.ptd").rename(folder / PACKED)
            written.append((PACKED, "data"))
    elif stored4:
        made.write_tensor_data_to_file(str(folder))
        plain = folder / f"{_TAG}.ptd"
        (folder / PACKED).write_bytes(_packed(plain.read_bytes(), folder / MODEL, stored4))
        plain.unlink()
        written.append((PACKED, "data"))
    if keep is not None:
        written.append((QUANTIZED, "quantized-program"))
    entries = tuple(_entry(folder / name, role, digests.get(name, "")) for name, role in written)
    return Written(files=entries, portable=portable)


def _entry(path: Path, role: Any, digest: str) -> FileEntry:
    return FileEntry(path=path.name, role=role, bytes=path.stat().st_size, sha256=digest or file_sha256(path))


def _tag_stored4(program: Any, layers: Collection[str]) -> None:
    """Mark the weights of `layers` as living outside the `.pte`."""
    for node in program.graph.nodes:
        if node.op != "call_function" or layer_name(node) not in layers or len(node.args) < 2:
            continue
        weight = node.args[1]
        source = weight.args[0] if getattr(weight, "op", "") == "call_function" else weight
        if getattr(source, "op", "") == "placeholder":
            source.meta["custom"] = {**source.meta.get("custom", {}), _DELEGATED_TAG: _TAG}


def _packed(plain: bytes, model: Path, stored4: Collection[str]) -> bytes:
    """The weights of `stored4` in 4 bits, everything else (their scales) as it is."""
    keys = {node.weight_key for node in read_pte(model).operators if node.layer in stored4}
    entries = sorted(named_weights(plain, where="weights.ptd").items(), key=lambda item: item[1].start)
    regions = [Region(start=0, size=entries[0][1].start, bits=8)]
    regions += [Region(start=at.start, size=at.size, bits=4 if key in keys else 8) for key, at in entries]
    return pack(plain, regions)


def _lower(program: Any, *, external: bool = False) -> tuple[Any, tuple[str, ...]]:
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge_transform_and_lower

    with without_needless_patterns(program):
        edge = to_edge_transform_and_lower(
            program,
            partitioner=[XnnpackPartitioner()],
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
            constant_methods={},
        )
    graph = edge.exported_program().graph_module
    names = torch.tensor(list(encode_names(_names(graph))), dtype=torch.uint8)
    # Debug handles exist only now, and the public way to add a constant method ends before; the version is pinned.
    edge._config_methods = {NAMES_METHOD: names}
    outside: Any = _table_tag if external else False
    return edge.to_executorch(ExecutorchBackendConfig(external_constants=outside)), tuple(_portable(graph).values())


def _table_tag(node: Any) -> str | None:
    return _TAG if is_table_constant(node) else None


def _portable(graph: Any) -> dict[Any, str]:
    """Operators of the top graph that no delegate took, as the file will name them, e.g. "aten::embedding"."""
    found = {}
    for node in graph.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if node.op == "call_function" and schema is not None and "::" in schema.name:
            found[node] = str(schema.name)
    return found


def _names(graph: Any) -> dict[str, str]:
    """Layer names by the keys of `runtimes.formats.pte_names`."""
    found: dict[str, str] = {}
    calls: dict[str, int] = {}
    for node, operator in _portable(graph).items():
        number = calls[operator] = calls.get(operator, -1) + 1
        if LAYER in node.meta.get("custom", {}):
            found[f"{operator}#{number}"] = layer_name(node)
    for child in graph.children():
        program = getattr(child, "original_module", None)
        for node in program.graph_module.graph.nodes if program is not None else ():
            handle = node.meta.get("debug_handle")
            if node.op == "call_function" and isinstance(handle, int) and LAYER in node.meta.get("custom", {}):
                found.setdefault(str(handle), layer_name(node))
    return found
