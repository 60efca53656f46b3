"""Data parallel training over torch.distributed (gloo, torchrun): what of the gradients travels, and how much.

After DQRM (Zhou et al., arXiv:2410.20046, section 3.3): tables' gradients travel as the rows that were looked up; then
their values, and the MLPs' gradients, in INT8 with a scale that all processes agree on (the largest of theirs). What
rounding takes from the MLPs' gradients is added to the next step's (error feedback). A buffer for tables would be as
large as the model; their values are rounded up or down by chance instead, so that they are right on average: the
nearest value of most rows is 0, because frequent rows set the scale. Parameters must begin alike on all processes,
and stay so, as all step by the same mean.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from converters.compress.optimisers import table_parameters
from edge_deploy.core.errors import BadInput, ToolchainError
from edge_deploy.core.require import require

if TYPE_CHECKING:
    import torch

__all__ = ["GradientExchange", "Kind", "joined"]

Kind: TypeAlias = Literal["dense", "sparse", "sparse-int8"]
LONGEST_WAIT = timedelta(minutes=30)
SMALLEST_SCALE = 2.0**-100
STEPS_A_SEED = 1 << 40  # more than a training has, so that no two processes draw alike


class GradientExchange:
    """Replaces every gradient by its mean over the processes, and counts what one process hands over for that.

    Attributes:
        rank, world: This process, and how many there are.
        payload_bytes: What this process has contributed to all exchanges so far.
    """

    def __init__(self, kind: Kind) -> None:
        """Use the process group that is open.

        Raises:
            BadInput: No such kind of exchange.
        """
        if kind not in get_args(Kind):
            raise BadInput(f"exchange {kind}: must be one of {', '.join(get_args(Kind))}.")
        self.kind = kind
        self._dist = require("torch.distributed", extra="run-executorch")
        self.rank, self.world = int(self._dist.get_rank()), int(self._dist.get_world_size())
        self.payload_bytes = 0
        self._errors: dict[int, Any] = {}
        self._steps = 0

    @property
    def writes(self) -> bool:
        """Whether files are this process's task."""
        return bool(self.rank == 0)

    def combine(self, model: torch.nn.Module) -> None:
        """Replace every gradient by the mean over the processes; gradients of tables stay sparse but for "dense"."""
        tables = {id(parameter) for parameter in table_parameters(model)}
        numbered = [(n, p) for n, p in enumerate(model.parameters()) if p.grad is not None]
        if self.kind == "sparse-int8":
            self._combine_int8(numbered, tables)
            return
        for _, parameter in numbered:
            gradient = parameter.grad
            if gradient.is_sparse and self.kind == "sparse":
                gradient = gradient.coalesce()
                rows, values = gradient.indices(), gradient.values()
                self.payload_bytes += rows.numel() * rows.element_size() + values.numel() * values.element_size()
            else:
                gradient = gradient.to_dense() if gradient.is_sparse else gradient
                self.payload_bytes += gradient.numel() * gradient.element_size()
            self._dist.all_reduce(gradient)
            parameter.grad = gradient / self.world

    def _combine_int8(self, numbered: list[tuple[int, Any]], tables: set[int]) -> None:
        torch = require("torch", extra="run-executorch")
        values, rows = [], []
        for number, parameter in numbered:
            gradient = parameter.grad
            if gradient.is_sparse:
                gradient = gradient.coalesce()
                rows.append(gradient.indices()[0])
                values.append(gradient.values())
                continue
            rows.append(None)
            is_table = id(parameter) in tables
            values.append(gradient if is_table or number not in self._errors else gradient + self._errors[number])
        scales = torch.stack([v.abs().max() if v.numel() else v.new_zeros(()) for v in values]).div_(127)
        self._dist.all_reduce(scales, op=self._dist.ReduceOp.MAX)
        scales.clamp_(min=SMALLEST_SCALE)
        self.payload_bytes += scales.numel() * scales.element_size()
        chance = torch.Generator().manual_seed(self.rank * STEPS_A_SEED + self._steps)
        self._steps += 1
        for (number, parameter), value, own, scale in zip(numbered, values, rows, scales, strict=True):
            if id(parameter) in tables:
                exact = (value / scale).add_(torch.rand(value.shape, generator=chance)).floor_()
            else:
                exact = torch.round(value / scale)
            stored = exact.clamp_(-127, 127).to(torch.int8)
            if own is None:
                if id(parameter) not in tables:
                    self._errors[number] = value - stored.float() * scale
                total = torch.stack(self._gathered(stored)).sum(dim=0, dtype=torch.int32)
                parameter.grad = total.float() * (scale / self.world)
                continue
            found = self._gathered_rows(own, stored)
            where = torch.cat([ids for ids, _ in found])
            each = torch.cat([part for _, part in found]).float() * (scale / self.world)
            parameter.grad = torch.sparse_coo_tensor(where[None], each, parameter.shape, check_invariants=False)

    def _gathered(self, tensor: Any) -> list[Any]:
        """The tensor of every process, all of one shape."""
        self.payload_bytes += tensor.numel() * tensor.element_size()
        torch = require("torch", extra="run-executorch")
        found = [torch.empty_like(tensor) for _ in range(self.world)]
        self._dist.all_gather(found, tensor.contiguous())
        return found

    def _gathered_rows(self, rows: Any, values: Any) -> list[tuple[Any, Any]]:
        """Row numbers and INT8 values of every process; the shorter ones travel padded to the longest."""
        torch = require("torch", extra="run-executorch")
        counts = [int(count) for count in self._gathered(torch.tensor([len(rows)], dtype=torch.int32))]
        longest = max(counts)
        ids = torch.zeros(longest, dtype=torch.int32)
        ids[: len(rows)] = rows.to(torch.int32)
        parts = torch.zeros((longest, *values.shape[1:]), dtype=torch.int8)
        parts[: len(values)] = values
        everyone = zip(self._gathered(ids), self._gathered(parts), counts, strict=True)
        return [(own[:count].to(torch.int64), part[:count]) for own, part, count in everyone]

    def state(self) -> Any:
        """Error buffers of all processes; every process must ask at once."""
        everyone: list[Any] = [None] * self.world
        self._dist.all_gather_object(everyone, {str(number): error for number, error in self._errors.items()})
        return {"errors": everyone, "payload_bytes": self.payload_bytes, "steps": self._steps}

    def restore(self, state: Any) -> None:
        """Go on from a former `state`.

        Raises:
            BadInput: It was left by another number of processes.
        """
        if len(state["errors"]) != self.world:
            raise BadInput(
                f"checkpoint: was left by {len(state['errors'])} processes, now there are {self.world}; start as many."
            )
        self._errors = {int(number): error for number, error in state["errors"][self.rank].items()}
        self.payload_bytes = int(state["payload_bytes"])
        self._steps = int(state["steps"])

    def wait(self) -> None:
        """Until every process is here."""
        self._dist.barrier()


@contextmanager
def joined(kind: Kind) -> Iterator[GradientExchange | None]:
    """The exchange among the processes that torchrun started; None where it started none, or a single one.

    Join once: a group that is open already is used, and left open.

    Raises:
        ToolchainError: The processes do not find each other.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield None
        return
    dist = require("torch.distributed", extra="run-executorch")
    if dist.is_initialized():
        yield GradientExchange(kind)  # gloo does not find together again after a group was left
        return
    try:
        dist.init_process_group("gloo", timeout=LONGEST_WAIT)
    except (RuntimeError, ValueError) as error:
        raise ToolchainError(f"torch.distributed: the processes do not find each other ({error}).") from error
    try:
        yield GradientExchange(kind)
    finally:
        dist.destroy_process_group()
