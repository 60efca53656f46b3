"""Optimisers for recommenders: sparse gradients touch only the rows that were looked up.

Row-wise Adagrad keeps one accumulator for each row of a table instead of one for each weight (Mudigere et al.,
"Software-Hardware Co-design for Fast and Scalable Training of Deep Learning Recommendation Models", ISCA 2022).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from edge_deploy.core.errors import BadInput
from edge_deploy.core.require import require

if TYPE_CHECKING:
    import torch

__all__ = ["Kind", "Optimisers", "make_optimisers", "rowwise_adagrad", "table_parameters"]

Kind: TypeAlias = Literal["sgd", "adagrad", "rowwise-adagrad", "adam"]
KINDS = ("sgd", "adagrad", "rowwise-adagrad", "adam")


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimisers:
    """What steps a model's parameters: one optimiser for the tables, one for everything else."""

    each: tuple[Any, ...]

    def step(self) -> None:
        """Apply the gradients and forget them."""
        for optimiser in self.each:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

    def state(self) -> list[Any]:
        """What `restore` takes."""
        return [optimiser.state_dict() for optimiser in self.each]

    def restore(self, states: list[Any]) -> None:
        """Go on from a former `state`."""
        for optimiser, state in zip(self.each, states, strict=True):
            optimiser.load_state_dict(state)


def table_parameters(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    """Parameters of embeddings: of `nn.Embedding`, `nn.EmbeddingBag`, and of modules whose `is_table` is true."""
    torch = require("torch", extra="run-executorch")
    kinds = (torch.nn.Embedding, torch.nn.EmbeddingBag)
    found: dict[int, Any] = {}
    for module in model.modules():
        if isinstance(module, kinds) or getattr(module, "is_table", False):
            found |= {id(parameter): parameter for parameter in module.parameters()}
    return list(found.values())


def make_optimisers(
    model: torch.nn.Module, kind: Kind, *, rate: float, table_rate: float | None = None, weight_decay: float = 0.0
) -> Optimisers:
    """The optimisers of one kind for tables and for the rest; tables' gradients become sparse.

    Args:
        table_rate: Learning rate of the tables, `rate` when None.
        weight_decay: Of everything but the tables, whose rows mostly have no gradient.

    Raises:
        BadInput: No such kind, or a rate that is not above 0.
    """
    torch = require("torch", extra="run-executorch")
    if kind not in KINDS:
        raise BadInput(f"optimiser {kind}: must be one of {', '.join(KINDS)}.")
    if rate <= 0 or (table_rate is not None and table_rate <= 0) or weight_decay < 0:
        raise BadInput(f"optimiser: rate {rate}, table rate {table_rate}, decay {weight_decay}: rates must be above 0.")
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding | torch.nn.EmbeddingBag):
            module.sparse = getattr(module, "mode", "") != "max"
    tables = table_parameters(model)
    own = {id(parameter) for parameter in tables}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in own]
    slow = rate if table_rate is None else table_rate
    each: list[Any] = []
    if rest:
        if kind == "sgd":
            each.append(torch.optim.SGD(rest, lr=rate, weight_decay=weight_decay))
        elif kind == "adam":
            each.append(torch.optim.AdamW(rest, lr=rate, weight_decay=weight_decay))
        else:
            each.append(torch.optim.Adagrad(rest, lr=rate, weight_decay=weight_decay))
    if tables:
        made = {
            "sgd": lambda: torch.optim.SGD(tables, lr=slow),
            "adagrad": lambda: torch.optim.Adagrad(tables, lr=slow),
            "rowwise-adagrad": lambda: rowwise_adagrad()(tables, lr=slow),
            "adam": lambda: torch.optim.SparseAdam(tables, lr=slow),
        }[kind]()
        each.append(made)
    return Optimisers(each=tuple(each))


@functools.cache
def rowwise_adagrad() -> Any:
    """The class of row-wise Adagrad: `RowwiseAdagrad(parameters, lr, eps=1e-8)`."""
    torch = require("torch", extra="run-executorch")

    class RowwiseAdagrad(torch.optim.Optimizer):  # type: ignore[misc,name-defined]
        """One accumulator a row: the mean of the squared gradients of its weights, summed over the steps."""

        def __init__(self, parameters: Iterable[Any], lr: float, eps: float = 1e-8) -> None:
            super().__init__(parameters, {"lr": lr, "eps": eps})

        @torch.no_grad()  # type: ignore[untyped-decorator]  # torch is Any here
        def step(self, closure: Any = None) -> None:
            """Update the rows that have a gradient."""
            for group in self.param_groups:
                for weight in group["params"]:
                    if weight.grad is None:
                        continue
                    state = self.state[weight]
                    if not state:
                        state["sum"] = torch.zeros(weight.shape[0], dtype=torch.float32)
                    if weight.grad.is_sparse:
                        _sparse_step(torch, weight, state["sum"], group["lr"], group["eps"])
                    else:
                        _dense_step(weight, state["sum"], group["lr"], group["eps"])

    return RowwiseAdagrad


def _sparse_step(torch: Any, weight: Any, total: Any, rate: float, eps: float) -> None:
    gradient = weight.grad.coalesce()
    rows, values = gradient.indices()[0], gradient.values()
    squares = values.square() if values.dim() == 1 else values.square().flatten(1).mean(dim=1)
    total.index_add_(0, rows, squares)
    step = (total.index_select(0, rows).sqrt_().add_(eps)).reciprocal_().mul_(-rate)
    weight.index_add_(0, rows, values * step.reshape(-1, *([1] * (values.dim() - 1))))


def _dense_step(weight: Any, total: Any, rate: float, eps: float) -> None:
    squares = weight.grad.square()
    total.add_(squares if squares.dim() == 1 else squares.flatten(1).mean(dim=1))
    step = total.sqrt().add_(eps).reciprocal_().mul_(-rate)
    weight.add_(weight.grad * step.reshape(-1, *([1] * (weight.dim() - 1))))
