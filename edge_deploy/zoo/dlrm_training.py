"""Train a DLRM on encoded rows: mini-batches, binary cross-entropy, early stop on the validation AUC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edge_deploy.core.errors import BadInput
from edge_deploy.core.require import require
from edge_deploy.zoo.metrics import auc

if TYPE_CHECKING:
    import torch

__all__ = ["EncodedPart", "Training", "TrainingPlan", "score", "train"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedPart:
    """Model inputs and labels.

    Attributes:
        dense: float32 [rows, features].
        sparse: int64 [rows, tables].
        labels: float32 [rows], 0 or 1.
    """

    dense: np.ndarray
    sparse: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        if not len(self.dense) == len(self.sparse) == len(self.labels):
            raise BadInput(f"rows: {len(self.dense)} dense, {len(self.sparse)} sparse, {len(self.labels)} labels.")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """How to train.

    Attributes:
        learning_rate: Of the MLPs, and of the tables unless `table_rate` is given.
        weight_decay: Of everything, per step, decoupled from the gradient for Adam (AdamW).
        patience: Stop after so many epochs without a better validation AUC; the best epoch's weights are kept.
    """

    optimizer: Literal["adam", "adagrad", "sgd"] = "adam"
    learning_rate: float = 2e-3
    table_rate: float | None = None
    weight_decay: float = 0.0
    batch: int = 512
    epochs: int = 12
    patience: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch < 1 or self.epochs < 1 or self.patience < 1 or self.learning_rate <= 0:
            raise BadInput("training: batch, epochs and patience must be at least 1, learning_rate above 0.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What happened.

    Attributes:
        validation_auc: After each epoch.
    """

    validation_auc: tuple[float, ...]
    best_epoch: int


def train(module: torch.nn.Module, training: EncodedPart, validation: EncodedPart, plan: TrainingPlan) -> Training:
    """Train in place and leave the weights of the best epoch, in evaluation mode.

    The same module, data and plan give the same weights on the same machine and number of threads.

    Raises:
        BadInput: There is no training or validation row.
    """
    if not len(training.labels) or not len(validation.labels):
        raise BadInput(f"training: {len(training.labels)} rows, validation: {len(validation.labels)}: need both.")
    torch = require("torch", extra="run-executorch")
    optimizer = _optimizer(torch, module, plan)
    loss_of = torch.nn.BCEWithLogitsLoss()
    dense, sparse, labels = (torch.from_numpy(a) for a in (training.dense, training.sparse, training.labels))
    shuffles = np.random.default_rng(plan.seed)
    curve: list[float] = []
    best: dict[str, Any] = {}
    best_epoch = 0
    ends_in_probability, module.probability = module.probability, False
    try:
        for epoch in range(plan.epochs):
            module.train()
            order = torch.from_numpy(shuffles.permutation(len(labels)))
            for rows in order.split(plan.batch):
                optimizer.zero_grad(set_to_none=True)
                loss = loss_of(module(dense[rows], sparse[rows])[:, 0], labels[rows])
                loss.backward()
                optimizer.step()
            curve.append(auc(validation.labels, score(module, validation)))
            if curve[-1] >= max(curve):
                best, best_epoch = {key: value.clone() for key, value in module.state_dict().items()}, epoch
            elif epoch - best_epoch >= plan.patience:
                break
    finally:
        module.probability = ends_in_probability
    module.load_state_dict(best)
    module.eval()
    return Training(validation_auc=tuple(curve), best_epoch=best_epoch)


def score(module: torch.nn.Module, part: EncodedPart, *, batch: int = 4096) -> np.ndarray:
    """Outputs [rows, 1] of the module in evaluation mode."""
    torch = require("torch", extra="run-executorch")
    module.eval()
    with torch.no_grad():
        parts = [
            module(torch.from_numpy(part.dense[i : i + batch]), torch.from_numpy(part.sparse[i : i + batch])).numpy()
            for i in range(0, len(part.labels), batch)
        ]
    return np.concatenate(parts) if parts else np.empty((0, 1), np.float32)


def _optimizer(torch: Any, module: Any, plan: TrainingPlan) -> Any:
    tables = list(module.tables.parameters())
    in_tables = {id(parameter) for parameter in tables}
    others = [parameter for parameter in module.parameters() if id(parameter) not in in_tables]
    rate = plan.learning_rate
    groups = [{"params": others}, {"params": tables, "lr": plan.table_rate if plan.table_rate is not None else rate}]
    kind = {"adam": torch.optim.AdamW, "adagrad": torch.optim.Adagrad, "sgd": torch.optim.SGD}[plan.optimizer]
    return kind(groups, lr=rate, weight_decay=plan.weight_decay)
