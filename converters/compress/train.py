"""Train a recommender on mini-batches: cross-entropy, early stop on the validation AUC, resumable at any step."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from converters.compress.batches import Batches
from converters.compress.optimisers import Kind, Optimisers, make_optimisers
from edge_deploy.core.errors import BadInput
from edge_deploy.core.require import require
from edge_deploy.zoo.metrics import auc

if TYPE_CHECKING:
    import torch

__all__ = ["Exchange", "TrainPlan", "Trained", "predict", "train"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainPlan:
    """How to train.

    Attributes:
        rate: Learning rate of the MLPs, and of the tables unless `table_rate` is given.
        weight_decay: Of the MLPs, per step.
        patience: Stop after so many looks at the validation rows without a better AUC; the best weights are kept.
        evaluate_every: Steps between two such looks; None looks at the end of every epoch.
        checkpoint_every: Steps between two checkpoints, where a file for them is given.
    """

    optimiser: Kind = "rowwise-adagrad"
    rate: float = 0.02
    table_rate: float | None = None
    weight_decay: float = 0.0
    epochs: int = 2
    patience: int = 2
    evaluate_every: int | None = None
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        if min(self.epochs, self.patience, self.checkpoint_every) < 1:
            raise BadInput("training: epochs, patience and checkpoint_every must be at least 1.")
        if self.evaluate_every is not None and self.evaluate_every < 1:
            raise BadInput("training: evaluate_every must be at least 1 step, or absent.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What happened.

    Attributes:
        curve: (step, validation AUC) at each look.
        best_step: Whose weights the model has now.
        seconds_per_step: Median of the steps of this run, without batches being read; 0 when none ran.
    """

    curve: tuple[tuple[int, float], ...]
    best_step: int
    steps: int
    seconds_per_step: float

    @property
    def validation_auc(self) -> float:
        """Of the weights that were kept."""
        return max(value for _, value in self.curve)


class Exchange(Protocol):
    """Combines the gradients of several processes; see `converters.compress.data_parallel`."""

    def combine(self, model: torch.nn.Module) -> None:
        """Replace every gradient of `model` by its mean over the processes."""

    def state(self) -> Any:
        """What a checkpoint must keep of it."""

    def restore(self, state: Any) -> None:
        """Go on from a former `state`."""

    def wait(self) -> None:
        """Until every process is here."""

    @property
    def writes(self) -> bool:
        """Whether files are this process's task."""


def train(
    model: torch.nn.Module,
    batches: Batches,
    validation: Batches,
    plan: TrainPlan,
    *,
    checkpoint: Path | None = None,
    hook: Callable[[int, float], None] | None = None,
    exchange: Exchange | None = None,
    look_first: bool = False,
) -> Trained:
    """Train in place, leave the best weights and evaluation mode.

    `model(dense, ids)` gives logits [B], [B, 1], or one for each of several tasks [B, tasks], of which the first is the
    one that is judged; an attribute `probability` that is true is false meanwhile. Its
    embeddings may be any modules with ids int64 [B] or [B, L] -> [B, D]. The same arguments give the same weights on
    the same machine and number of threads, also where a run was stopped and started again.

    Args:
        checkpoint: File to keep the state in and to go on from; removed when training is done.
        hook: Called after each step with its number, from 1, and its loss.
        exchange: Combines gradients between processes.
        look_first: The weights given may turn out to be the best, as when training goes on from trained ones.

    Raises:
        BadInput: The checkpoint belongs to another model or plan, or the loss is no number any more.
    """
    torch = require("torch", extra="run-executorch")
    from converters.compress.checkpoint import Progress, read_progress, write_progress

    optimisers = make_optimisers(
        model, plan.optimiser, rate=plan.rate, table_rate=plan.table_rate, weight_decay=plan.weight_decay
    )
    progress = Progress(steps_an_epoch=batches.steps)
    if checkpoint is not None and checkpoint.exists():
        progress = read_progress(checkpoint, model, optimisers, exchange, plan, batches.steps)
    seconds: list[float] = []
    loss_of = torch.nn.BCEWithLogitsLoss()
    ends_in_probability, model.probability = getattr(model, "probability", False), False
    look_every = plan.evaluate_every or batches.steps
    try:
        if look_first and not progress.curve:
            progress.look(auc(*_scored(model, validation)), model)
        while not progress.is_done(plan):
            epoch, first = divmod(progress.step, batches.steps)
            for dense, ids, labels in batches.epoch(epoch, first_step=first):
                model.train()
                start = time.perf_counter()
                loss = _step(model, optimisers, exchange, loss_of, dense, ids, labels)
                seconds.append(time.perf_counter() - start)
                progress.step += 1
                if not np.isfinite(loss):
                    raise BadInput(f"training: the loss at step {progress.step} is {loss}; take a lower rate.")
                last = progress.step == plan.epochs * batches.steps
                if progress.step % look_every == 0 or last:
                    progress.look(auc(*_scored(model, validation)), model)
                if checkpoint is not None and (progress.step % plan.checkpoint_every == 0 or last):
                    write_progress(checkpoint, progress, model, optimisers, exchange, plan)
                if hook is not None:
                    hook(progress.step, loss)
                if progress.is_done(plan):
                    break
    finally:
        model.probability = ends_in_probability
    model.load_state_dict(progress.best)
    model.eval()
    if exchange is not None:
        exchange.wait()  # until nobody reads the checkpoint any more
    if checkpoint is not None and (exchange is None or exchange.writes):
        checkpoint.unlink(missing_ok=True)
    return Trained(
        curve=tuple(progress.curve),
        best_step=progress.best_step,
        steps=progress.step,
        seconds_per_step=float(np.median(seconds)) if seconds else 0.0,
    )


def predict(model: torch.nn.Module, batches: Batches) -> tuple[np.ndarray, np.ndarray]:
    """(labels [N], probabilities [N]) of batches that are not shuffled, in evaluation mode."""
    ends_in_probability = getattr(model, "probability", False)
    labels, scores = _scored(model, batches)
    return labels, scores if ends_in_probability else 1 / (1 + np.exp(-scores.astype(np.float64)))


def _scored(model: Any, batches: Batches) -> tuple[np.ndarray, np.ndarray]:
    torch = require("torch", extra="run-executorch")
    model.eval()
    labels, scores = [], []
    with torch.no_grad():
        for dense, ids, clicked in batches.epoch(0):
            scores.append(model(dense, ids).reshape(len(clicked), -1)[:, 0].numpy())
            labels.append(clicked.numpy())
    return np.concatenate(labels), np.concatenate(scores)


def _step(
    model: Any, optimisers: Optimisers, exchange: Exchange | None, loss_of: Any, dense: Any, ids: Any, labels: Any
) -> float:
    scores = model(dense, ids).reshape(len(labels), -1)
    loss = loss_of(scores, labels.reshape(len(labels), -1).expand_as(scores))
    loss.backward()
    if exchange is not None:
        exchange.combine(model)
    optimisers.step()
    return float(loss.detach())
