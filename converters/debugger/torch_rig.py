"""A float torch graph and the quantized program of an ExecuTorch artifact, layer by layer, simulated by PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from converters.contracts import Captured
from converters.debugger.contracts import Arrays, Grid, Seen, Site
from converters.executorch.traced import constant, is_quantized_lookup, layer_nodes, run_traced, shown_node
from edge_deploy.core.errors import ToolchainError
from edge_deploy.core.tensor import TensorInfo

__all__ = ["TorchRig"]

_QUANTIZE = "quantized_decomposed.quantize_per_tensor.default"
_DEQUANTIZE = "quantized_decomposed.dequantize_per_tensor.default"


class TorchRig:
    """See `converters.debugger.contracts.Rig`."""

    method = "the kept quantized program beside the float program, simulated by PyTorch"

    def __init__(self, captured: Captured, folder: Path) -> None:
        """Load both graphs.

        Args:
            folder: The artifact, with its `quantized.pt2`.

        Raises:
            BadInput: A program cannot be read.
        """
        import torch

        from converters.executorch.lowering import QUANTIZED
        from converters.executorch.pointwise import pointwise_to_linear
        from converters.executorch.program import example_inputs, load_graph, load_program, tidy
        from converters.executorch.rewrites import rewrite
        from converters.passes.kept_changes import is_folded, restore_graph

        before = load_graph(captured)
        rewrite(before, fold=is_folded(folder))
        tidy(before)
        restore_graph(before, folder)
        after = load_program(folder / QUANTIZED).module(check_guards=False)
        linears = {name for name, node in layer_nodes(after).items() if node.target is torch.ops.aten.linear.default}
        pointwise_to_linear(before, linears)  # those that `after` computes so, in the same layout
        self._before, self._after, self._captured = before, after, captured
        old, new = layer_nodes(before), layer_nodes(after)
        self._nodes = {name: (old[name], new[name]) for name in new if name in old}
        self._constants: dict[Any, Any] = {}
        self.batch = int(example_inputs(captured.inputs, captured.batches)[0].shape[0])
        self._inputs = self._input_sites()
        self.sites = (*self._inputs.values(), *(self._site(name) for name in self._nodes))

    def see(self, feeds: Arrays) -> Seen:
        """Run both graphs, and the quantized one with the float graph's values at every layer's inputs."""
        arguments = self._arguments(feeds)
        want = self._traced(self._before, arguments, 0)
        got = self._traced(self._after, arguments, 1)
        own_want, own_got = self._own(arguments, want)
        fits = {name for name in want.keys() & got.keys() if want[name].shape == got[name].shape}
        want = {name: want[name] for name in fits}
        got = {name: got[name] for name in fits}
        for info, value in zip(self._captured.inputs, arguments, strict=True):
            site = self._inputs.get(info.name)
            if site is not None:
                values = value.double().numpy()
                want[info.name] = own_want[info.name] = values
                got[info.name] = own_got[info.name] = values if site.grid is None else site.grid.rounded(values)
        return Seen(want=want, got=got, own_want=own_want, own_got=own_got)

    def answer(self, feeds: Arrays, errors: Arrays) -> np.ndarray:
        """The float graph's first output with errors added at their sites."""
        import torch

        arguments = [
            value if info.name not in errors else value + torch.from_numpy(errors[info.name]).to(value.dtype)
            for info, value in zip(self._captured.inputs, self._arguments(feeds), strict=True)
        ]
        at = {self._nodes[name][0].name: error for name, error in errors.items() if name in self._nodes}

        def add(node: Any, result: Any, _: Any) -> Any:
            return result + torch.from_numpy(np.ascontiguousarray(at[node.name])).to(result.dtype)

        output = _run(self._before, arguments, at, add)
        first = output[0] if isinstance(output, (list, tuple)) else output
        found: np.ndarray = first.double().numpy().reshape(self.batch, -1)
        return found

    def _arguments(self, feeds: Arrays) -> list[Any]:
        import torch

        return [
            torch.from_numpy(np.ascontiguousarray(feeds[info.name], dtype=info.dtype)) for info in self._captured.inputs
        ]

    def _traced(self, graph: Any, arguments: Sequence[Any], side: int) -> dict[str, np.ndarray]:
        try:
            return run_traced(graph, arguments, {name: pair[side] for name, pair in self._nodes.items()})
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise ToolchainError(f"{self._captured.name}: PyTorch failed ({error}).") from error

    def _own(
        self, arguments: Sequence[Any], want: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Each layer of the quantized graph on the float graph's values, and its float operator on the same."""
        import torch

        layers = {new.name: name for name, (_, new) in self._nodes.items()}
        own_want: dict[str, np.ndarray] = {}
        own_got: dict[str, np.ndarray] = {}

        def force(node: Any, result: Any, args: Any) -> Any:
            name = layers[node.name]
            if name not in want or tuple(want[name].shape) != tuple(result.shape):
                return result
            reference = self._float_result(name, args)
            if reference is not None and tuple(reference.shape) == tuple(result.shape):
                own_want[name] = reference.double().numpy()
                own_got[name] = _as_shown(node, result)
            return torch.from_numpy(want[name]).to(result.dtype)

        _run(self._after, self._as_given(arguments), layers, force)
        return own_want, own_got

    def _float_result(self, name: str, args: Any) -> Any:
        """The float operator on what the quantized one reads; None where the two are built differently."""
        old, new = self._nodes[name]
        if is_quantized_lookup(new):
            args = (None, args[5])
            merged = (self._constant(old.args[0]), args[1])
            return old.target(*merged)
        if old.target is not new.target or len(old.args) != len(args):
            return None
        try:
            return old.target(*(self._merged(a, b) for a, b in zip(old.args, args, strict=True)), **old.kwargs)
        except (RuntimeError, TypeError, ValueError, IndexError):
            return None  # other shapes: the layers were rebuilt

    def _merged(self, argument: Any, value: Any) -> Any:
        """Constants of the float graph, everything that is computed from the quantized one."""
        if hasattr(argument, "op"):
            known = self._constant(argument)
            return value if known is None else known
        if isinstance(argument, (list, tuple)) and isinstance(value, (list, tuple)) and len(argument) == len(value):
            return [self._merged(a, b) for a, b in zip(argument, value, strict=True)]
        return argument

    def _constant(self, node: Any) -> Any:
        if node not in self._constants:
            self._constants[node] = constant(self._before, node)
        return self._constants[node]

    def _as_given(self, arguments: Sequence[Any]) -> list[Any]:
        from converters.executorch.traced import as_taken

        holders = [node for node in self._after.graph.nodes if node.op == "placeholder"]
        return [as_taken(holder, value) for holder, value in zip(holders, arguments, strict=True)]

    def _input_sites(self) -> dict[str, Site]:
        holders = [node for node in self._after.graph.nodes if node.op == "placeholder"]
        found = {}
        for info, holder in zip(self._captured.inputs, holders, strict=True):
            if info.dtype.startswith("float"):
                found[info.name] = _input_site(info, holder)
        return found

    def _site(self, name: str) -> Site:
        node = self._nodes[name][1]
        quantizer = shown_node(node)
        grid = _grid(quantizer) if quantizer is not node else None
        dtype = "float32" if grid is None else "int8"
        op = str(node.target).removesuffix(".default")
        return Site(layer=name, op=op, kind="layer", dtype=dtype, grid=grid)


def _input_site(info: TensorInfo, holder: Any) -> Site:
    """An input with the grid in which everybody reads it, if everybody does."""
    readers = list(holder.users)
    while len(readers) == 1 and str(readers[0].target).startswith(("aten.permute", "aten.view", "aten.clone")):
        readers = list(readers[0].users)  # operators that only move values may stand in between
    grids = [_grid(user) for user in readers if str(user.target) in (_QUANTIZE, _DEQUANTIZE)]
    grid = grids[0] if grids and len(grids) == len(readers) else None
    return Site(layer=info.name, op="input", kind="input", dtype="float32" if grid is None else "int8", grid=grid)


def _grid(node: Any) -> Grid:
    scale, zero, low, high = node.args[1:5]
    return Grid.of(float(scale), int(zero), lowest=int(low), highest=int(high))


def _as_shown(node: Any, result: Any) -> np.ndarray:
    """A layer's result as its only reader stores it, real again."""
    quantizer = shown_node(node)
    values: np.ndarray = result.double().numpy()
    return values if quantizer is node else _grid(quantizer).rounded(values)


def _run(graph: Any, arguments: Sequence[Any], nodes: Collection[str], change: Callable[[Any, Any, Any], Any]) -> Any:
    """Run a graph; `change(node, result, its arguments)` says what stands for the result of each of `nodes`."""
    import torch

    class Changed(torch.fx.Interpreter):  # type: ignore[misc]  # its types are not read, see pyproject.toml
        def run_node(self, n: Any) -> Any:
            result = super().run_node(n)
            if n.name not in nodes or not isinstance(result, torch.Tensor):
                return result
            return change(n, result, self.fetch_args_kwargs_from_env(n)[0])

    try:
        with torch.no_grad():
            return Changed(graph).run(*arguments)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise ToolchainError(f"PyTorch failed on a layer ({str(error).splitlines()[0]}).") from error
