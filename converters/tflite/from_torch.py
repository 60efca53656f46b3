"""A captured torch program as a float TFLite file: NHWC images, a signature for each batch size, names of the source.

litert-torch lowers the program; what it leaves to be wished is done before (images enter and leave in the order that
TFLite's kernels want, so that no TRANSPOSE remains) and after (names of signatures, tensors and layers).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from converters.contracts import Captured
from converters.tflite.flatbuffer import read_model, write_model
from converters.tflite.flatten_order import fold_flattening_transpositions
from converters.tflite.torch_names import label_operators, labelled_conversion, rename_graph, rename_signatures
from converters.tflite.transpositions import cancel_transposition_pairs, reduce_before_transposing
from edge_deploy.core.errors import BadInput, Refusal, ToolchainError, Unsupported
from edge_deploy.core.require import require
from edge_deploy.core.tensor import TensorInfo

__all__ = ["adapted", "float_tflite"]

FILE = "float.tflite"
NARROWED = {"int64": "int32", "float64": "float32"}


def adapted(info: TensorInfo) -> TensorInfo:
    """An input or output of the program as the TFLite file has it: NHWC instead of NCHW, 32 bits instead of 64."""
    dtype = NARROWED.get(info.dtype, info.dtype)
    if info.layout != "NCHW":
        return dataclasses.replace(info, dtype=dtype)  # type: ignore[arg-type]  # both are DTypes
    batch, channels, height, width = info.shape
    return dataclasses.replace(
        info,
        dtype=dtype,  # type: ignore[arg-type]  # both are DTypes
        layout="NHWC",
        shape=(batch, height, width, channels),
    )


def float_tflite(captured: Captured, folder: Path) -> Path:
    """Write `float.tflite` into `folder`, or return the one that stands there already.

    Its inputs and outputs bear the source's names and are otherwise as `adapted` says.

    Raises:
        BadInput: The program cannot be read.
        Unsupported: Operators that litert-torch cannot lower, by layer name.
        ToolchainError: The converter failed for another reason.
    """
    path = folder / FILE
    if path.exists():
        return path
    torch = require("torch", extra="export-tflite")
    litert_torch = require("litert_torch", extra="export-tflite")
    assert captured.program is not None
    program = _load(torch, captured.program)
    graph = program.module(check_guards=False)
    labels = label_operators(graph)
    _allow_any_strides(torch, graph)
    module = _channels_last(torch, graph, captured)
    converter: Any = None
    for batch in captured.batches:
        arguments = tuple(_example(torch, info, batch) for info in captured.inputs)
        add = litert_torch.signature if converter is None else converter.signature
        converter = add(_signature(batch, captured.batches), module, arguments)
    partial = folder / f".{FILE}.partial"
    try:
        with labelled_conversion():
            converter.convert().export(str(partial))
    except Exception as error:
        raise _as_ours(captured, labels, error, litert_torch) from error
    model = read_model(partial)
    cancel_transposition_pairs(model)
    reduce_before_transposing(model)
    fold_flattening_transpositions(model)
    rename_signatures(model, captured.inputs, captured.outputs)
    rename_graph(model, labels)
    # The converter's file is mapped into memory by the model that is being written: another name keeps it readable.
    final = folder / f".{FILE}.named"
    write_model(model, final)
    final.replace(path)
    partial.unlink()
    return path


def _signature(batch: int, batches: tuple[int, ...]) -> str:
    return "serving_default" if len(batches) == 1 else f"batch_{batch}"


def _load(torch: Any, path: Path) -> Any:
    try:
        return torch.export.load(path)
    except Exception as error:
        raise BadInput(f"{path}: is not a readable torch.export archive ({error}).") from error


def _example(torch: Any, info: TensorInfo, batch: int) -> Any:
    shape = adapted(info).shape
    fixed = (batch if info.shape[0] == -1 else info.shape[0], *shape[1:])
    return torch.zeros(fixed, dtype=getattr(torch, info.dtype))


def _allow_any_strides(torch: Any, graph: Any) -> None:
    """Views become reshapes: behind a permuted image a view of the original strides is impossible."""
    for node in graph.graph.nodes:
        if node.op == "call_function" and node.target is torch.ops.aten.view.default:
            node.target = torch.ops.aten.reshape.default
    graph.recompile()


def _channels_last(torch: Any, graph: Any, captured: Captured) -> Any:
    """The graph behind permutations of its images; the converter moves them through and cancels them."""
    inputs, outputs = captured.inputs, captured.outputs

    class ChannelsLast(torch.nn.Module):  # type: ignore[misc]  # torch ships no types here
        def __init__(self) -> None:
            super().__init__()
            self.program = graph
            self.training = False  # an exported graph refuses eval(), and is in evaluation mode anyhow

        def forward(self, *tensors: Any) -> Any:
            given = [
                tensor.permute(0, 3, 1, 2) if info.layout == "NCHW" else tensor
                for tensor, info in zip(tensors, inputs, strict=True)
            ]
            # Interpreted, not called: so the new export copies the labels of the operators.
            with torch.fx.traceback.preserve_node_meta():
                answer = torch.fx.Interpreter(self.program).run(*given)
            made = answer if isinstance(answer, (tuple, list)) else (answer,)
            return tuple(
                tensor.permute(0, 2, 3, 1) if info.layout == "NCHW" else tensor
                for tensor, info in zip(made, outputs, strict=True)
            )

    return ChannelsLast()


def _as_ours(captured: Captured, labels: dict[str, str], error: Exception, litert_torch: Any) -> Exception:
    text = str(error).strip()
    if "Lowering not found" in text:
        name = text.split("Lowering not found:")[-1].split()[0].strip(".,;")
        kind = name.split(".")[1] if name.count(".") else name
        layers = sorted({label for node, label in labels.items() if kind.strip("_") in node}) or [name]
        refusals = tuple(
            Refusal(layer=layer, op=name, reason="litert-torch cannot lower it to TFLite") for layer in layers
        )
        return Unsupported(f"{captured.name}: cannot become TFLite.", refusals=refusals)
    version = getattr(litert_torch, "__version__", "")
    return ToolchainError(f"{captured.name}: litert-torch {version} failed: {type(error).__name__}: {text[-1000:]}")
