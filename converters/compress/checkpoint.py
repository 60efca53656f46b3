"""State of a training that was stopped: written in one rename, checked against model and plan before it is used."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_deploy.core.errors import BadInput
from edge_deploy.core.require import require

if TYPE_CHECKING:
    from converters.compress.optimisers import Optimisers
    from converters.compress.train import Exchange, TrainPlan

__all__ = ["Progress", "read_progress", "write_progress"]


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far a training is.

    Attributes:
        step: Steps done, over all epochs.
        curve: (step, validation AUC) at each look.
        best: State dict of the best look.
    """

    steps_an_epoch: int
    step: int = 0
    curve: list[tuple[int, float]] = field(default_factory=list)
    best_step: int = 0
    best: dict[str, Any] = field(default_factory=dict)

    def look(self, value: float, model: Any) -> None:
        """Note a validation AUC, and keep the weights when it is the best so far."""
        if not self.curve or value > max(known for _, known in self.curve):
            self.best = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
            self.best_step = self.step
        self.curve.append((self.step, value))

    def is_done(self, plan: TrainPlan) -> bool:
        """Whether all epochs are over, or the last looks brought nothing better."""
        since = sum(step > self.best_step for step, _ in self.curve)
        return self.step >= plan.epochs * self.steps_an_epoch or since >= plan.patience


def write_progress(
    path: Path, progress: Progress, model: Any, optimisers: Optimisers, exchange: Exchange | None, plan: TrainPlan
) -> None:
    """Write the state beside `path` and rename it into place.

    Raises:
        BadInput: The file cannot be written.
    """
    torch = require("torch", extra="run-executorch")
    shared = None if exchange is None else exchange.state()
    if exchange is not None and not exchange.writes:
        return
    partial = path.with_name(f".{path.name}.partial")
    state = {
        "plan": dataclasses.asdict(plan),
        "progress": {
            name: getattr(progress, name) for name in ("steps_an_epoch", "step", "curve", "best_step", "best")
        },
        "model": model.state_dict(),
        "optimisers": optimisers.state(),
        "exchange": shared,
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise BadInput(f"{path}: checkpoint could not be written ({error.strerror or error}).") from error
    finally:
        partial.unlink(missing_ok=True)


def read_progress(
    path: Path, model: Any, optimisers: Optimisers, exchange: Exchange | None, plan: TrainPlan, steps_an_epoch: int
) -> Progress:
    """Put the state of a checkpoint into model and optimisers.

    Raises:
        BadInput: The file is damaged, or belongs to another model, plan or log.
    """
    torch = require("torch", extra="run-executorch")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        known, progress = state["plan"], Progress(**state["progress"])
        weights, steps, shared = state["model"], state["optimisers"], state["exchange"]
    except Exception as error:  # torch.load fails in whatever it happens to be doing
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise BadInput(
            f"{path}: is no checkpoint of a training, or damaged ({first}); delete it to start anew."
        ) from error
    own = dataclasses.asdict(plan)
    changed = [f"{name} was {known.get(name)}, is {own[name]}" for name in own if known.get(name) != own[name]]
    if progress.steps_an_epoch != steps_an_epoch:
        changed.append(f"steps an epoch were {progress.steps_an_epoch}, are {steps_an_epoch}")
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if {name: tuple(tensor.shape) for name, tensor in weights.items()} != shapes:
        changed.append("the model has other weights")
    if changed:
        raise BadInput(f"{path}: belongs to another training ({'; '.join(changed)}); delete it to start anew.")
    model.load_state_dict(weights)
    optimisers.restore(steps)
    if exchange is not None:
        exchange.restore(shared)
    progress.curve = [(int(step), float(value)) for step, value in progress.curve]
    return progress
