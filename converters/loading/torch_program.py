"""Export a module as a torch program with flat tensor inputs, and read what a program says of itself."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edge_deploy.core.errors import BadInput, ToolchainError, Unsupported
from edge_deploy.core.require import require
from edge_deploy.core.tensor import DType, Layout, TensorInfo

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram

__all__ = [
    "check_batch_bounds",
    "check_finite",
    "flat_program",
    "flatten_outputs",
    "describe_outputs",
    "export_program",
    "kind_of",
    "load_program",
    "user_inputs",
    "with_layout",
    "without_detach",
]

IMAGE_CHANNELS = (1, 3, 4)
# Operators that only rename or reshape what the operator before them made.
TRANSPARENT = frozenset(
    {"alias", "clone", "contiguous", "flatten", "reshape", "squeeze", "to", "unsqueeze", "view", "_to_copy"}
)


def export_program(
    source: str, module: nn.Module, inputs: tuple[TensorInfo, ...], batches: tuple[int, ...]
) -> ExportedProgram:
    """Export in evaluation mode; a batch of -1 is dynamic from 1 to the largest of `batches`.

    Raises:
        BadInput: The module cannot be called with the declared inputs.
        Unsupported: Its Python code depends on values, or on a fixed batch.
    """
    torch = require("torch", extra="export-tflite")
    is_dynamic = any(info.shape[0] == -1 for info in inputs)
    arguments = tuple(_example(torch, info, batch=2 if is_dynamic else info.shape[0]) for info in inputs)
    try:
        with torch.no_grad():
            module(*arguments)
    except Exception as error:
        told = f"{type(error).__name__}: {_first_line(error)}"
        shapes = ", ".join(f"{info.name} {tuple(tensor.shape)}" for info, tensor in zip(inputs, arguments, strict=True))
        hint = ", or ask for a single --batch" if is_dynamic else ""
        raise BadInput(f"{source}: cannot be called with {shapes}: {told}; check --input{hint}.") from error
    dynamic_shapes: Any = None
    if is_dynamic:
        batch = torch.export.Dim("batch", min=1, max=max(batches))
        dims = tuple({0: batch} if info.shape[0] == -1 else {} for info in inputs)
        # A forward(*tensors) is one parameter to torch.export: its dimensions are one entry.
        dynamic_shapes = (dims,) if _takes_any_number(module) else dims
    try:
        with torch.no_grad():
            program = torch.export.export(module, arguments, dynamic_shapes=dynamic_shapes, strict=False)
    except Exception as error:
        text = str(error)
        if is_dynamic and ("onstraint" in text or "batch" in text):
            raise Unsupported(
                f"{source}: works for one batch size only ({_first_line(error)}); ask for a single --batch."
            ) from error
        if "data-dependent" in text or "DataDependent" in type(error).__name__ or "GuardOnDataDependent" in text:
            raise Unsupported(
                f"{source}: its Python code branches on values of tensors, which no exported graph can hold: "
                f"{_first_line(error)}"
            ) from error
        raise ToolchainError(
            f"{source}: torch.export of torch {torch.__version__} failed: {type(error).__name__}: {text.strip()[:1000]}"
        ) from error
    _check_same(source, module, program, inputs, batches)
    return without_detach(program)


def without_detach(program: ExportedProgram) -> ExportedProgram:
    """The program without `detach_`, which torch.tensor(...) in a forward leaves there; changed in place.

    Torch runs such a program, but can neither decompose nor export it again ("Can't detach views in-place").
    """
    graph = program.graph_module.graph
    found = [node for node in graph.nodes if node.op == "call_function" and _op_name(node) in ("detach", "detach_")]
    for node in found:
        node.replace_all_uses_with(node.args[0])
        graph.erase_node(node)
    if found:
        graph.lint()
        program.graph_module.recompile()
    return program


def _check_same(
    source: str, module: nn.Module, program: ExportedProgram, inputs: tuple[TensorInfo, ...], batches: tuple[int, ...]
) -> None:
    """Compare program and module on seeded values.

    An export freezes code that asks for the batch size, or draws random numbers, in one of its ways without a word.
    """
    torch = require("torch", extra="export-tflite")
    leaves = require("torch.utils._pytree", extra="export-tflite").tree_leaves
    graph = program.module(check_guards=False)
    for batch in sorted({min(batches), max(batches)}):
        generator = torch.Generator().manual_seed(batch)
        arguments = tuple(
            torch.randn(example.shape, generator=generator, dtype=example.dtype)
            if example.is_floating_point()
            else example
            for example in (
                _example(torch, info, batch=batch if info.shape[0] == -1 else info.shape[0]) for info in inputs
            )
        )
        with torch.no_grad():
            wanted, got = leaves(module(*arguments)), leaves(graph(*arguments))
        for one, other in zip(wanted, got, strict=True):
            if torch.is_tensor(one) and not (
                one.shape == other.shape
                and torch.allclose(one.double(), other.double(), rtol=1e-3, atol=1e-4, equal_nan=True)
            ):
                raise Unsupported(
                    f"{source}: the exported program computes something else than the module at batch {batch}: its "
                    "Python code depends on the batch size, or on random numbers; ask for a single --batch, or make it "
                    "deterministic."
                )


def load_program(path: Path) -> ExportedProgram:
    """Read a `.pt2` file.

    Raises:
        BadInput: It is damaged, or was written by a torch that this one cannot read.
    """
    torch = require("torch", extra="export-tflite")
    from edge_deploy.zoo.robe import register_operator

    register_operator()
    try:
        return without_detach(torch.export.load(path))
    except Exception as error:
        raise BadInput(
            f"{path}: torch.export.load of torch {torch.__version__} cannot read it "
            f"({type(error).__name__}: {_first_line(error)}); it is damaged or of another version."
        ) from error


def user_inputs(source: str, program: ExportedProgram) -> tuple[TensorInfo, ...]:
    """The program's tensor inputs in call order; -1 stands for a dynamic dimension.

    Raises:
        Unsupported: An input is no tensor.
    """
    found = []
    for name, value in _values(program, program.graph_signature.user_inputs):
        if value is None and not isinstance(name, str):
            continue  # a constant argument, such as None for an optional one
        if value is None:
            raise Unsupported(f"{source}: input {name} is not a tensor; export the model with tensor inputs only.")
        found.append(TensorInfo(name=str(name), shape=_shape(value), dtype=_dtype(value)))
    return tuple(found)


def check_batch_bounds(source: str, program: ExportedProgram, batches: tuple[int, ...]) -> None:
    """Refuse batch sizes outside the bounds that the program was exported with.

    Raises:
        BadInput: Names the bounds.
    """
    for name, value in _values(program, program.graph_signature.user_inputs):
        size = value.shape[0] if value is not None and len(value.shape) else 1
        bounds = program.range_constraints.get(getattr(getattr(size, "node", None), "expr", None))
        # An exported "at least 2" only says that torch does not specialise for 0 and 1; such programs run with 1.
        low = 1 if bounds is not None and bounds.lower == 2 else (bounds.lower if bounds is not None else 1)
        outside = [batch for batch in batches if bounds is not None and not low <= batch <= bounds.upper]
        if outside:
            raise BadInput(
                f"{source}: input {name}: --batch {', '.join(map(str, outside))}: the program was exported for "
                f"{low} to {bounds.upper}; export it again with wider bounds."
            )


def flat_program(program: ExportedProgram) -> nn.Module | None:
    """A module around the program that takes flat tensors; None where the program takes them by itself."""
    torch = require("torch", extra="export-tflite")
    pytree = require("torch.utils._pytree", extra="export-tflite")
    leaves = list(program.graph_signature.user_inputs)
    spec = program.call_spec.in_spec
    args, kwargs = pytree.tree_unflatten(list(range(len(leaves))), spec)
    if not kwargs and list(args) == list(range(len(leaves))) and all(isinstance(leaf, str) for leaf in leaves):
        return None
    inner = program.module(check_guards=False)

    class FlatInputs(torch.nn.Module):  # type: ignore[misc,name-defined]  # torch ships no types here
        def __init__(self) -> None:
            super().__init__()
            self.model = inner

        def forward(self, *tensors: Any) -> Any:
            given = iter(tensors)
            # What is no name in the signature is a constant that the program was exported with.
            values = [next(given) if isinstance(leaf, str) else leaf for leaf in leaves]
            positional, keyword = pytree.tree_unflatten(values, spec)
            return self.model(*positional, **keyword)

    return FlatInputs()


def describe_outputs(source: str, program: ExportedProgram, image: bool) -> tuple[TensorInfo, ...]:
    """The program's outputs: "output" when there is one, "output_0", ... for several, or the keys of a dict.

    Raises:
        Unsupported: An output is no tensor.
    """
    values = _values(program, program.graph_signature.user_outputs)
    names = _output_names(program, len(values))
    found = []
    for name, (node, value) in zip(names, values, strict=True):
        if value is None:
            raise Unsupported(f"{source}: output {name} is not a tensor; return tensors only.")
        shape, kind = _shape(value), _dtype(value)
        layout: Layout | None = "NCHW" if image and len(shape) == 4 and kind == "float32" else None
        meaning: Literal["probability"] | None = "probability" if _is_probability(program, node) else None
        found.append(TensorInfo(name=name, shape=shape, dtype=kind, layout=layout, meaning=meaning))
    return tuple(found)


def flatten_outputs(program: ExportedProgram) -> None:
    """Let the program return a tensor, or a tuple of tensors, whatever its module returned; changes it in place."""
    pytree = require("torch.utils._pytree", extra="export-tflite")
    signature = program.module_call_graph[0].signature
    count = signature.out_spec.num_leaves
    signature.out_spec = pytree.tree_structure(0 if count == 1 else tuple(range(count)))


def kind_of(program: ExportedProgram) -> Literal["cnn", "recommender", "generic"]:
    """By the operators in the graph: convolutions make a CNN, embeddings a recommender."""
    names = {_op_name(node) for node in program.graph.nodes if node.op == "call_function"}
    if any("conv" in name for name in names):
        return "cnn"
    return "recommender" if any("embedding" in name for name in names) else "generic"


def with_layout(inputs: tuple[TensorInfo, ...]) -> tuple[TensorInfo, ...]:
    """Four-dimensional float inputs of one, three or four channels are images in PyTorch's order."""
    return tuple(
        dataclasses.replace(info, layout="NCHW")
        if len(info.shape) == 4 and info.dtype == "float32" and info.shape[1] in IMAGE_CHANNELS
        else info
        for info in inputs
    )


def check_finite(source: str, program: ExportedProgram) -> None:
    """Refuse weights that are NaN or infinite.

    Raises:
        BadInput: Names each such tensor.
    """
    torch = require("torch", extra="export-tflite")
    problems = []
    for name, tensor in program.state_dict.items():
        if torch.is_tensor(tensor) and tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            bad = int((~tensor.isfinite()).sum())
            problems.append(f"{source}: weight {name}: {bad} of {tensor.numel()} values are NaN or infinite.")
    if problems:
        raise BadInput(*problems)


def _example(torch: Any, info: TensorInfo, *, batch: int) -> Any:
    # Ids of zero exist in every table; ones in a float input keep divisions and logarithms finite.
    make = torch.ones if info.dtype.startswith("float") else torch.zeros
    return make((batch, *info.shape[1:]), dtype=getattr(torch, info.dtype))


def _takes_any_number(module: Any) -> bool:
    kinds = [parameter.kind for parameter in inspect.signature(module.forward).parameters.values()]
    return kinds == [inspect.Parameter.VAR_POSITIONAL]


def _values(program: ExportedProgram, names: tuple[Any, ...]) -> list[tuple[Any, Any]]:
    by_name = {node.name: node for node in program.graph.nodes}
    result = []
    for name in names:
        node = by_name.get(name) if isinstance(name, str) else None
        value = node.meta.get("val") if node is not None else None
        result.append((name, value if hasattr(value, "shape") else None))
    return result


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(size if isinstance(size, int) else -1 for size in value.shape)


def _dtype(value: Any) -> DType:
    name: DType = str(value.dtype).removeprefix("torch.")  # type: ignore[assignment]  # torch's names are ours
    return name


def _output_names(program: ExportedProgram, count: int) -> list[str]:
    pytree = require("torch.utils._pytree", extra="export-tflite")
    tree = pytree.tree_unflatten(list(range(count)), program.call_spec.out_spec)
    if isinstance(tree, dict):
        paths, _ = pytree.tree_flatten_with_path(tree)
        return ["_".join(str(getattr(key, "key", getattr(key, "idx", key))) for key in path) for path, _ in paths]
    return ["output"] if count == 1 else [f"output_{index}" for index in range(count)]


def _is_probability(program: ExportedProgram, name: Any) -> bool:
    node: Any = next((node for node in program.graph.nodes if node.name == name), None)
    while node is not None and node.op == "call_function" and _op_name(node) in TRANSPARENT:
        node = node.args[0]
    return node is not None and node.op == "call_function" and _op_name(node) in ("sigmoid", "softmax", "_softmax")


def _op_name(node: Any) -> str:
    """ "conv2d" of aten.conv2d.default."""
    target = getattr(node.target, "_schema", None)
    return target.name.split("::")[-1] if target is not None else str(getattr(node.target, "__name__", node.target))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
