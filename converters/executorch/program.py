"""Turn what was captured into a named torch graph, and a graph back into an exported program."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.contracts import Captured
from edge_deploy.core.errors import BadInput, ToolchainError, Unsupported
from edge_deploy.core.require import require
from edge_deploy.core.tensor import TensorInfo

if TYPE_CHECKING:
    import torch

__all__ = [
    "LAYER",
    "attribute",
    "example_inputs",
    "export",
    "load_graph",
    "load_program",
    "name_layers",
    "set_attribute",
    "tidy",
]

LAYER = "layer"
"""Key of a node's `meta["custom"]` that holds its layer name; torch.export carries it along."""

_LEAF_MODULES = "torch.nn.modules."


def load_graph(captured: Captured) -> torch.fx.GraphModule:
    """The float graph of a captured model, every operator carrying its layer name.

    Raises:
        BadInput: The archive cannot be read.
        ToolchainError: torch.export fails on the imported model.
    """
    if captured.framework == "keras":
        from converters.importers.tflite_graph import import_module

        assert captured.float_tflite is not None
        channels_first = any(info.layout == "NCHW" for info in captured.inputs) and _has_images_last(captured)
        # The file may have its inputs and outputs in another order than the source.
        module = import_module(
            captured.float_tflite,
            channels_first=channels_first,
            inputs=[info.name for info in captured.inputs],
            outputs=[info.name for info in captured.outputs],
        )
        graph = export(module, captured.inputs, captured.batches).module(check_guards=False)
    else:
        assert captured.program is not None
        graph = load_program(captured.program).module(check_guards=False)
    name_layers(graph)
    return graph


def _has_images_last(captured: Captured) -> bool:
    """Whether the float file takes images as NHWC although the source has them as NCHW."""
    from runtimes.formats.tflite import read_signatures

    assert captured.float_tflite is not None
    given = {info.name: info.shape for info in read_signatures(captured.float_tflite)[0].inputs}
    return any(info.layout == "NCHW" and given.get(info.name, info.shape) != info.shape for info in captured.inputs)


def load_program(path: Path) -> torch.export.ExportedProgram:
    """An exported program, float or quantized.

    Raises:
        BadInput: The archive cannot be read.
    """
    torch = require("torch", extra="export-executorch")
    # Registers the quantized_decomposed operators, without which torch.export.load refuses quantized programs.
    require("torchao.quantization.pt2e.quantize_pt2e", extra="export-executorch")
    try:
        return torch.export.load(path)
    except Exception as error:  # whatever torch raises on a damaged archive
        raise BadInput(f"{path}: is not a readable torch.export archive ({error}).") from error


def example_inputs(inputs: Sequence[TensorInfo], batches: Sequence[int]) -> tuple[Any, ...]:
    """Tensors of the inputs' shapes: zeros, which every id input accepts; a dynamic batch is traced at its largest."""
    import torch

    batch = max(batches)
    return tuple(
        torch.zeros([batch if size < 0 else size for size in info.shape], dtype=getattr(torch, info.dtype))
        for info in inputs
    )


def export(module: Any, inputs: Sequence[TensorInfo], batches: Sequence[int]) -> torch.export.ExportedProgram:
    """Export `module`: static for one batch size, with a bounded dynamic batch for several.

    Raises:
        Unsupported: Several batch sizes are asked of a model whose batch is fixed.
        ToolchainError: torch.export fails.
    """
    torch = require("torch", extra="export-executorch")
    shapes = None
    if len(set(batches)) > 1:
        if not any(info.shape and info.shape[0] == -1 for info in inputs):
            raise Unsupported(f"--batch {', '.join(map(str, batches))}: the model's batch is fixed; give one --batch.")
        batch = torch.export.Dim("batch", min=1, max=max(batches))
        shapes = tuple({0: batch} if info.shape and info.shape[0] == -1 else {} for info in inputs)
    try:
        with torch.no_grad():
            return torch.export.export(module, example_inputs(inputs, batches), dynamic_shapes=shapes)
    except Exception as error:  # torch.export raises errors of many kinds
        raise ToolchainError(f"torch.export {torch.__version__}: {type(error).__name__}: {error}") from error


def tidy(graph: torch.fx.GraphModule) -> None:
    """Drop constants that no operator reads any more, so that no file carries them, and traces of the machine.

    The others are laid out row by row. A [1, C, 1, 1] made by a permutation has the strides of a channels-last image:
    torch calls it contiguous, and so does XNNPACK's layout pass, but the runtime reads the strides and does not load
    the file.
    """
    used = {str(node.target) for node in graph.graph.nodes if node.op == "get_attr"}
    tensors = (*graph.named_parameters(remove_duplicate=False), *graph.named_buffers(remove_duplicate=False))
    for path, value in tensors:
        if path in used:
            value.data = _row_by_row(value.data)
            continue
        owner, _, leaf = path.rpartition(".")
        delattr(attribute(graph, owner) if owner else graph, leaf)
    for node in graph.graph.nodes:
        for key in ("stack_trace", "from_node", "source_fn_stack"):
            node.meta.pop(key, None)


def _row_by_row(value: torch.Tensor) -> torch.Tensor:
    import torch

    plain = torch.empty(value.shape, dtype=value.dtype, device="meta").stride()
    if value.layout != torch.strided or value.stride() == plain:
        return value
    return torch.empty(value.shape, dtype=value.dtype).copy_(value)


def name_layers(graph: torch.fx.GraphModule) -> None:
    """Give every operator a layer name: the module path where a module owns it, else the path and the operator."""
    taken: dict[str, int] = {}
    for node in graph.graph.nodes:
        if node.op != "call_function" or LAYER in node.meta.get("custom", {}):
            continue
        name = _name(node)
        seen = taken[name] = taken.get(name, 0) + 1
        node.meta["custom"] = {**node.meta.get("custom", {}), LAYER: name if seen == 1 else f"{name}#{seen}"}


def _name(node: Any) -> str:
    weight = next((arg.target for arg in node.args if getattr(arg, "op", "") == "get_attr"), None)
    if weight is not None and str(weight).rpartition(".")[2] in ("weight", "kernel") and "." in str(weight):
        return str(weight).rpartition(".")[0]
    path, kind = "", ""
    for path, kind in (node.meta.get("nn_module_stack") or {}).values():  # noqa: B007  # the innermost is wanted
        pass
    kind = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
    if path and kind.startswith(_LEAF_MODULES) and ".container" not in kind:
        return str(path)
    return f"{path}.{node.name}" if path else str(node.name)


def attribute(graph: Any, path: str) -> Any:
    """The tensor that a get_attr node of `graph` names."""
    value = graph
    for part in path.split("."):
        value = getattr(value, part)
    return value


def set_attribute(graph: Any, near: str, suffix: str, value: Any) -> str:
    """Register a new tensor beside the one at path `near`; returns its path."""
    import torch

    owner_path, _, leaf = near.rpartition(".")
    owner = attribute(graph, owner_path) if owner_path else graph
    name = f"{leaf}_{suffix}"
    number = 0
    while hasattr(owner, name):
        number += 1
        name = f"{leaf}_{suffix}{number}"
    owner.register_parameter(name, torch.nn.Parameter(value.detach(), requires_grad=False))
    return f"{owner_path}.{name}" if owner_path else name
