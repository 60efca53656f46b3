"""Run an exported program on labels instead of numbers; sub-graphs of constants are computed as they are."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.recommender.hashed import HashedRows
from converters.recommender.labels import Affine, Const, Dot, Input, Labels, Linear, Opaque, Row, Sum, Unary
from converters.recommender.vocabulary import ACTIVATIONS, COMPARISONS, IGNORED, MOVES
from edge_deploy.core.robe import RobeHash, RobeTable

if TYPE_CHECKING:
    import torch

__all__ = ["Interpreted", "NotUnderstood", "Sym", "interpret"]

LARGEST = 1 << 24  # elements of one symbolic intermediate; beyond it the program is no recommender of ours


class NotUnderstood(Exception):  # control flow within this package, never shown to the user
    """The program has an operator outside the recommender vocabulary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sym:
    """A tensor that depends on the inputs: a torch int64 tensor of labels, and what its elements are."""

    labels: Any
    kind: str  # "float", "int" or "bool"

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes, as of the tensor it stands for."""
        return tuple(self.labels.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreted:
    """The labels of a program's first output, and of nothing else."""

    labels: Labels
    output: Sym


def interpret(program: torch.export.ExportedProgram, shapes: list[tuple[int, ...]]) -> Interpreted:
    """Follow every element of `program` from its inputs of these shapes to its output.

    Raises:
        NotUnderstood: An operator that recommenders of our kind do not have.
    """
    try:
        return _Interpreter(program).run(shapes)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        # An operator that does not take labels in place of its numbers, in a program that is none of ours.
        raise NotUnderstood(f"{type(error).__name__}: {error}") from error


class _Interpreter:
    """Holds the values of one run."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        self.program = program
        self.labels = Labels()
        self.names: dict[int, str] = {}
        self.keep: list[Any] = []  # `names` goes by id(), so the tensors must stay alive

    def run(self, shapes: list[tuple[int, ...]]) -> Interpreted:
        import torch

        program = self.program
        signature = program.graph_signature
        values: dict[str, Any] = {}
        held = {**program.constants, **program.state_dict}
        targets = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        targets |= signature.inputs_to_lifted_tensor_constants
        user = list(signature.user_inputs)
        env: dict[Any, Any] = {}
        with torch.no_grad():
            for node in program.graph.nodes:
                if node.op == "placeholder":
                    if node.name in targets:
                        values[node.name] = self._named(held[targets[node.name]].detach(), targets[node.name])
                    else:
                        values[node.name] = self._input(user.index(node.name), shapes, node)
                    env[node] = values[node.name]
                elif node.op == "call_function":
                    env[node] = self._call(node, env)
                elif node.op == "output":
                    if len(signature.user_outputs) != 1:
                        raise NotUnderstood("several outputs")
                    output = node.args[0][len(node.args[0]) - len(signature.user_outputs)]
                    result = env[output]
                    if not isinstance(result, Sym):
                        raise NotUnderstood("the output does not depend on the inputs")
                    return Interpreted(labels=self.labels, output=result)
                else:
                    raise NotUnderstood(node.op)
        raise NotUnderstood("no output")

    def _input(self, index: int, shapes: list[tuple[int, ...]], node: Any) -> Sym:
        import torch

        shape = shapes[index]
        labels = self.labels.add(Input(index=index), math.prod(shape))
        return Sym(labels=torch.from_numpy(labels).reshape(shape), kind=_kind(node))

    def _named(self, tensor: Any, name: str) -> Any:
        self.names[id(tensor)] = name
        self.keep.append(tensor)
        return tensor

    def _name(self, tensor: Any, default: str) -> str:
        return self.names.get(id(tensor), default)

    def _call(self, node: Any, env: dict[Any, Any]) -> Any:
        import torch

        args = torch.fx.node.map_arg(node.args, lambda n: env[n])
        kwargs = torch.fx.node.map_arg(node.kwargs, lambda n: env[n])
        target = node.target
        if target is operator.getitem:
            return args[0][args[1]]
        name = target._schema.name.split("::")[-1] if hasattr(target, "_schema") else getattr(target, "__name__", "?")
        if name in IGNORED:
            return None
        if name == "sym_size":
            return args[0].shape[args[1]]
        found = [value for value in _flat((args, kwargs)) if isinstance(value, Sym)]
        if not found:
            return self._constant(target, args, kwargs, name)
        if name in MOVES:
            return self._move(target, args, kwargs, name, _kind(node))
        method: Callable[..., Any] | None = getattr(self, f"_op_{name.strip('_')}", None)
        if name in ACTIVATIONS:
            return self._elementwise(Unary(op=name, args=_flat_labels(args[0])), args[0].shape, "float")
        if name in COMPARISONS:
            return self._opaque(name, [*args, *kwargs.values()], _kind(node))
        if method is None:
            raise NotUnderstood(name)
        return method(node, *args, **kwargs)

    def _constant(self, target: Any, args: Any, kwargs: Any, name: str) -> Any:
        result = target(*args, **kwargs)
        sources = [value for value in _flat(args) if id(value) in self.names]
        if len(sources) == 1 and name in (*MOVES, "to_copy", "_to_copy"):
            for value in _flat([result]):
                if hasattr(value, "shape"):
                    self._named(value, self.names[id(sources[0])])
        return result

    def _lift(self, value: Any, shape: tuple[int, ...] | None = None) -> Any:
        """Labels of a value that may be a constant, as a torch tensor."""
        import torch

        if isinstance(value, Sym):
            return value.labels
        tensor = torch.as_tensor(value)
        if shape is not None and tensor.ndim == 0:
            tensor = tensor.expand(())
        if tensor.numel() > LARGEST:
            raise NotUnderstood("a large constant among the activations")
        numbers = tensor.to(torch.float64).reshape(-1).numpy()
        labels = np.where(numbers == 0, 0, self.labels.add(Const(values=numbers), len(numbers)))
        return torch.from_numpy(labels).reshape(tensor.shape)

    def _move(self, target: Any, args: Any, kwargs: Any, name: str, kind: str) -> Any:
        """Run an operator that only moves data on the labels; constants that it moves along get labels too."""
        if name == "dropout" or name == "feature_dropout":
            if len(args) > 2 and args[2]:
                raise NotUnderstood("dropout in training mode")
            return args[0]
        if name in ("gather", "index_select", "masked_select", "take") and any(isinstance(a, Sym) for a in args[1:]):
            if name == "index_select" and args[1] == 0 and not isinstance(args[0], Sym):
                return self._op_embedding(None, args[0], args[2])
            raise NotUnderstood(name)
        if name == "where" and isinstance(args[0], Sym):
            return self._opaque("where", list(args), kind)
        if name == "constant_pad_nd" and len(args) > 2 and args[2] != 0:
            raise NotUnderstood("padding with a number other than 0")
        lifted = [self._labels_of(arg, position, name) for position, arg in enumerate(args)]
        kwargs = {key: value for key, value in kwargs.items() if key in ("dim", "start", "end", "diagonal", "implicit")}
        return _wrap(target(*lifted, **kwargs), kind)

    def _labels_of(self, arg: Any, position: int, name: str) -> Any:
        import torch

        if isinstance(arg, Sym):
            return arg.labels
        if isinstance(arg, (list, tuple)) and any(isinstance(a, Sym) for a in arg):
            return [self._lift(a) for a in arg]
        if name == "where" and position in (1, 2):
            return self._lift(arg) if isinstance(arg, torch.Tensor) else self._lift(torch.tensor(float(arg)))
        return arg

    def _elementwise(self, block: Any, shape: tuple[int, ...], kind: str) -> Sym:
        import torch

        size = math.prod(shape)
        if size > LARGEST:
            raise NotUnderstood("a large intermediate")
        return Sym(labels=torch.from_numpy(self.labels.add(block, size)).reshape(shape), kind=kind)

    def _opaque(self, name: str, operands: list[Any], kind: str) -> Sym:
        import torch

        lifted = [self._lift(float("nan") if value is None else value) for value in operands]
        together = torch.broadcast_tensors(*lifted)
        args = torch.stack([t.reshape(-1) for t in together], dim=-1).numpy()
        return self._elementwise(Opaque(op=name, args=args), tuple(together[0].shape), kind)

    def _affine(self, x: Sym, scale: Any, shift: Any, kind: str = "float") -> Sym:
        import torch

        one = torch.as_tensor(scale, dtype=torch.float64)
        two = torch.as_tensor(shift, dtype=torch.float64)
        labels, scales, shifts = torch.broadcast_tensors(x.labels, one, two)
        block = Affine(
            args=labels.reshape(-1).numpy(), scale=scales.reshape(-1).numpy(), shift=shifts.reshape(-1).numpy()
        )
        return self._elementwise(block, tuple(labels.shape), kind)

    # One method an operator from here on; the trailing part of the name is the operator's.

    def _op_to_copy(self, node: Any, x: Sym, **_: Any) -> Sym:
        kind = _kind(node)
        if kind == "int" and x.kind == "float":
            raise NotUnderstood("ids that are floating-point inputs")
        if kind == "bool" and x.kind != "bool":
            return self._opaque("ne", [x, 0.0], "bool")
        return Sym(labels=x.labels, kind=kind)

    def _op_embedding(self, node: Any, table: Any, ids: Any, *_: Any, **__: Any) -> Sym:
        import torch

        if isinstance(table, Sym) or not isinstance(ids, Sym) or len(table.shape) != 2:
            raise NotUnderstood("an embedding table that depends on the inputs")
        unique, inverse = torch.unique(ids.labels, return_inverse=True)
        dim = table.shape[1]
        name = self._name(table, "embedding")
        starts = [self.labels.add(Row(table=table, name=name, id_label=int(u)), dim)[0] for u in unique]
        first = torch.tensor(np.array(starts, dtype=np.int64))[inverse]
        return Sym(labels=first[..., None] + torch.arange(dim), kind="float")

    def _op_robe_rows(
        self,
        node: Any,
        array: Any,
        ids: Any,
        multipliers: list[int],
        rows: int,
        offset: int,
        block: int,
        dim: int,
        prime: int,
    ) -> Sym:
        """The operator of `edge_deploy.zoo.robe`."""
        if isinstance(array, Sym) or not isinstance(ids, Sym):
            raise NotUnderstood("a shared array that depends on the inputs")
        first, second, third = multipliers
        made = RobeHash(size=len(array), block=block, dim=dim, multipliers=(first, second, third), prime=prime)
        table = HashedRows(array=array, table=RobeTable(hash=made, rows=rows, offset=offset))
        self.keep.append(table)
        self.names[id(table)] = _owner(node) or self._name(array, "embedding").removesuffix(".array")
        return self._op_embedding(node, table, ids)

    def _op_index(self, node: Any, x: Any, indices: list[Any]) -> Any:
        import torch

        if isinstance(x, Sym):
            if any(isinstance(index, Sym) for index in indices):
                raise NotUnderstood("indexing by an input")
            return Sym(labels=torch.ops.aten.index.Tensor(x.labels, indices), kind=x.kind)
        if len(indices) == 1 and isinstance(indices[0], Sym):
            return self._op_embedding(node, x, indices[0])
        raise NotUnderstood("indexing a constant by several inputs")

    def _op_mm(self, node: Any, x: Any, w: Any) -> Sym:
        return self._matrix(node, x, w, None)

    def _op_addmm(self, node: Any, bias: Any, x: Any, w: Any, **kwargs: Any) -> Sym:
        if kwargs or isinstance(bias, Sym):
            raise NotUnderstood("addmm with factors")
        return self._matrix(node, x, w, bias)

    def _op_linear(self, node: Any, x: Any, w: Any, bias: Any = None) -> Sym:
        if isinstance(w, Sym) or isinstance(bias, Sym):
            raise NotUnderstood("a weight that depends on the inputs")
        transposed = self._named(w.t(), self._name(w, node.name))
        flat = Sym(labels=x.labels.reshape(-1, x.shape[-1]), kind="float")
        out = self._matrix(node, flat, transposed, bias)
        return Sym(labels=out.labels.reshape(*x.shape[:-1], -1), kind="float")

    def _op_mv(self, node: Any, x: Any, v: Any) -> Sym:
        if isinstance(v, Sym):
            raise NotUnderstood("mv")
        out = self._matrix(node, x, self._named(v[:, None], self._name(v, node.name)), None)
        return Sym(labels=out.labels[:, 0], kind="float")

    def _matrix(self, node: Any, x: Any, w: Any, bias: Any) -> Sym:
        import torch

        if isinstance(w, Sym):
            product = self._products(self._lift(x)[None], w.labels[None])
            product = Sym(labels=product.labels[0], kind="float")
            return product if bias is None else self._affine(product, 1.0, bias)
        rows = []
        name = self._name(w, node.name)
        bias = None if bias is None else bias.expand(w.shape[1])
        for row in x.labels.numpy():
            rows.append(self.labels.add(Linear(row=row, weight=w, bias=bias, name=name), w.shape[1]))
        return Sym(labels=torch.from_numpy(np.stack(rows)), kind="float")

    def _op_bmm(self, node: Any, a: Any, b: Any) -> Sym:
        return self._products(self._lift(a), self._lift(b))

    def _op_matmul(self, node: Any, a: Any, b: Any) -> Sym:
        if not isinstance(b, Sym) and b.ndim == 2:
            return self._op_linear(node, a, self._named(b.t(), self._name(b, node.name)))
        raise NotUnderstood("matmul")

    def _products(self, a: Any, b: Any) -> Sym:
        import torch

        batch, m, k = a.shape
        n = b.shape[2]
        if batch * m * n * k > LARGEST:
            raise NotUnderstood("a large product of activations")
        left = a[:, :, None, :].expand(batch, m, n, k)
        right = b.permute(0, 2, 1)[:, None, :, :].expand(batch, m, n, k)
        block = Dot(left=left.reshape(-1, k).numpy(), right=right.reshape(-1, k).numpy())
        return Sym(labels=torch.from_numpy(self.labels.add(block, batch * m * n)).reshape(batch, m, n), kind="float")

    def _op_sum(self, node: Any, x: Sym, dims: Any = None, keepdim: bool = False, **_: Any) -> Sym:
        if x.kind == "int":
            raise NotUnderstood("a sum of integers")
        labels = x.labels
        axes = sorted({d % labels.ndim for d in dims}) if dims else list(range(labels.ndim))
        rest = [d for d in range(labels.ndim) if d not in axes]
        count = math.prod(labels.shape[d] for d in axes)
        args = labels.permute(*rest, *axes).reshape(-1, count).numpy()
        shape = (
            [1 if d in axes else s for d, s in enumerate(labels.shape)] if keepdim else [labels.shape[d] for d in rest]
        )
        return self._elementwise(Sum(args=args), tuple(shape), "float")

    def _op_mean(self, node: Any, x: Sym, dims: Any = None, keepdim: bool = False, **_: Any) -> Sym:
        total = self._op_sum(node, x, dims, keepdim)
        return self._affine(total, math.prod(total.shape) / math.prod(x.shape), 0.0)

    def _op_mul(self, node: Any, a: Any, b: Any) -> Sym:
        import torch

        if not isinstance(a, Sym):
            a, b = b, a
        if not isinstance(b, Sym):
            return self._affine(a, b, 0.0, a.kind)
        left, right = torch.broadcast_tensors(a.labels, b.labels)
        block = Dot(left=left.reshape(-1, 1).numpy(), right=right.reshape(-1, 1).numpy())
        return self._elementwise(block, tuple(left.shape), "float")

    def _op_pow(self, node: Any, x: Any, exponent: Any) -> Sym:
        if not isinstance(x, Sym) or isinstance(exponent, Sym) or not _is_two(exponent):
            raise NotUnderstood("a power other than the square")
        return self._op_mul(node, x, x)

    def _op_square(self, node: Any, x: Sym) -> Sym:
        return self._op_mul(node, x, x)

    def _op_add(self, node: Any, a: Any, b: Any, alpha: float = 1) -> Sym:
        import torch

        if isinstance(a, Sym) and isinstance(b, Sym):
            if alpha != 1:
                b = self._affine(b, alpha, 0.0)
            left, right = torch.broadcast_tensors(a.labels, b.labels)
            args = torch.stack([left.reshape(-1), right.reshape(-1)], dim=-1).numpy()
            return self._elementwise(Sum(args=args), tuple(left.shape), _kind(node))
        if isinstance(a, Sym):
            return self._affine(a, 1.0, torch.as_tensor(b, dtype=torch.float64) * alpha, _kind(node))
        return self._affine(b, float(alpha), a, _kind(node))

    def _op_sub(self, node: Any, a: Any, b: Any, alpha: float = 1) -> Sym:
        return self._op_add(node, a, b, alpha=-alpha)

    def _op_neg(self, node: Any, x: Sym) -> Sym:
        return self._affine(x, -1.0, 0.0, x.kind)

    def _op_div(self, node: Any, a: Any, b: Any, rounding_mode: str | None = None) -> Sym:
        import torch

        if rounding_mode is not None:
            raise NotUnderstood("integer division")
        if isinstance(b, Sym):
            return self._opaque("div", [a, b], "float")
        return self._affine(a, 1.0 / torch.as_tensor(b, dtype=torch.float64), 0.0)

    def _op_native_batch_norm_legit_no_training(
        self, node: Any, x: Sym, weight: Any, bias: Any, mean: Any, variance: Any, momentum: float, eps: float
    ) -> tuple[Sym, None, None]:
        import torch

        scale = 1.0 / torch.sqrt(variance.double() + eps)
        scale = scale if weight is None else scale * weight.double()
        shift = -mean.double() * scale + (0 if bias is None else bias.double())
        along = (1, -1) + (1,) * (x.labels.ndim - 2)
        return self._affine(x, scale.reshape(along), shift.reshape(along)), None, None


def _is_two(exponent: Any) -> bool:
    """Whether all values of a number or a tensor are 2."""
    import torch

    return bool((torch.as_tensor(exponent) == 2).all())


def _kind(node: Any) -> str:
    value = node.meta.get("val") if node is not None else None
    dtype = str(getattr(value, "dtype", "torch.float32"))
    return "bool" if "bool" in dtype else "int" if "int" in dtype else "float"


def _flat(value: Any) -> list[Any]:
    if isinstance(value, (list, tuple)):
        return [item for part in value for item in _flat(part)]
    if isinstance(value, dict):
        return [item for part in value.values() for item in _flat(part)]
    return [value]


def _flat_labels(x: Sym) -> np.ndarray:
    flat: np.ndarray = x.labels.reshape(-1).numpy()
    return flat


def _wrap(result: Any, kind: str) -> Any:
    if isinstance(result, (list, tuple)):
        return [Sym(labels=part, kind=kind) for part in result]
    return Sym(labels=result, kind=kind)


def _owner(node: Any) -> str:
    """Path of the module that called the operator; empty where the export did not keep it."""
    stack = node.meta.get("nn_module_stack") or {}
    path = next((str(entry[0]) for entry in reversed(list(stack.values()))), "")
    return path.removeprefix("L['self'].").removeprefix("self.")
