"""Quantization-aware training of a captured CNN: INT4 or INT8, taught by its own float model and by labels.

Fake-quantized forward, float backward (Krishnamoorthi, arXiv:1806.08342, section 3.2); the float model's answers are
the teacher (distillation, Hinton et al., arXiv:1503.02531), so that unlabelled samples train as well.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from converters.compress.qat_graph import QatNet, make_qat, put_weights
from converters.compress.qat_start import start_rounded
from converters.compress.trained_layers import EXTRA_FILE, trained_text
from converters.contracts import Captured
from converters.executorch.calibration import Samples
from converters.executorch.program import export, load_graph, tidy
from converters.executorch.stacking import free_batch
from converters.samples import save_arrays
from edge_deploy.core.errors import BadInput, Unsupported
from edge_deploy.core.require import require
from edge_deploy.core.tensor import TensorInfo

if TYPE_CHECKING:
    import torch

__all__ = ["Images", "QatPlan", "QatResult", "train_cnn"]

WATCHED_BATCHES = 16
TEMPERATURE = 2.0
SMALLEST_PROBABILITY = 1e-7
AVERAGED = 0.5  # of the epochs


@dataclass(frozen=True, slots=True, kw_only=True)
class QatPlan:
    """How to train.

    Attributes:
        bits: Of all weights: 4 or 8; activations have 8.
        ranges: Ends of activations learned by gradient, or a moving average of the batches' extremes.
        distill: Share of the loss that compares with the float model; the rest compares with labels. 1 needs none.
        frozen_from: Share of the epochs behind which batch norms keep their long-term statistics. A trained float model
            has good ones; those of training batches put it further from itself than INT4 does. Moving averages of
            ranges go on for half of the epochs at least.
        crop: Images are moved by up to so many pixels; `flip`: half of them are mirrored.
    """

    bits: int = 4
    epochs: int = 12
    batch: int = 64
    rate: float = 1e-4
    ranges: Literal["learned", "moving-average"] = "learned"
    distill: float = 0.7
    frozen_from: float = 0.0
    crop: int = 0
    flip: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        problems = []
        if self.bits not in (4, 8):
            problems.append(f"quantized training: bits = {self.bits}: must be 4 or 8.")
        if self.epochs < 1 or self.batch < 2 or self.crop < 0:
            problems.append("quantized training: epochs must be at least 1, batch at least 2, crop at least 0.")
        if not self.rate > 0:
            problems.append(f"quantized training: rate = {self.rate}: must be above 0.")
        if not 0 <= self.distill <= 1 or not 0 <= self.frozen_from <= 1:
            problems.append("quantized training: distill and frozen_from must lie in [0, 1].")
        if self.ranges not in ("learned", "moving-average"):
            problems.append(f"quantized training: ranges = {self.ranges}: must be learned or moving-average.")
        if problems:
            raise BadInput(*problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """Samples in the source's terms.

    Attributes:
        values: float32 [n, ...].
        labels: [n]; NaN where there is none.
    """

    values: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class QatResult:
    """What happened.

    Attributes:
        curve: After each epoch: the share of validation samples with the float model's answer.
        best_epoch: Whose weights were kept, from 1; 0 is the start. They come nearest to the float model's answers to
            validation samples and moved copies of them: their divergence tells epochs apart whose answers are the same.
        answers: Of the kept weights, fake-quantized, to the validation samples [n, classes].
        folded_norms: Batch norms that were trained along.
    """

    curve: tuple[float, ...]
    best_epoch: int
    answers: np.ndarray
    float_answers: np.ndarray
    layers: int
    folded_norms: int


def train_cnn(
    captured: Captured,
    training: Images,
    validation: Images,
    plan: QatPlan,
    out: Path,
    *,
    progress: Callable[[int, float], None] = lambda epoch, agreement: None,
) -> QatResult:
    """Train and write a `.pt2` file whose weights lie on their grids, with the scales inside.

    Args:
        out: The `.pt2` file.
        progress: Called after each epoch with its number and the agreement with the float model.

    Raises:
        BadInput: Labels are missing or no classes of the model.
        Unsupported: The model has several inputs or outputs, or takes one sample at a time only.
    """
    torch = require("torch", extra="export-executorch")
    info = _single_input(captured)
    teacher = load_graph(captured)
    free = _freed(teacher, captured, training.values)
    if not free:
        raise Unsupported(f"{captured.name}: computes one batch size only, so that it cannot be trained.")
    student = load_graph(captured)
    _freed(student, captured, training.values)
    names = tuple(each.name for each in captured.inputs)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        net = make_qat(student, names, bits=plan.bits, ranges=plan.ranges)
        is_probability = captured.outputs[0].meaning == "probability"
        _check_labels(captured, training, plan)
        result = _trained(net, teacher, training, validation, plan, info, is_probability, progress)
    graph = load_graph(captured)
    put_weights(graph, net)
    tidy(graph)
    _name_inputs(graph, names)
    program = export(graph, captured.inputs, captured.batches)
    # The program's own names of its inputs are those that whoever reads the file will find.
    own = dict(zip(names, map(str, program.graph_signature.user_inputs), strict=True))
    trained = net.trained()
    activations = {own.get(name, name): value for name, value in trained.activations.items()}
    torch.export.save(program, out, extra_files={EXTRA_FILE: trained_text(replace(trained, activations=activations))})
    return result


def _name_inputs(graph: Any, names: tuple[str, ...]) -> None:
    """Let the exported program call its inputs as the source does, where such names can be Python's."""
    given = [node for node in graph.graph.nodes if node.op == "placeholder"]
    told = getattr(graph.graph._codegen, "pytree_info", None)
    taken = {node.name for node in graph.graph.nodes}
    if told is None or len(told.orig_args) != len(names) or not all(name.isidentifier() for name in names):
        return
    if taken.intersection(names) - {node.name for node in given}:
        return
    for node, name in zip(given, names, strict=True):
        node.name = node.target = name
    graph.graph._codegen.pytree_info = told._replace(orig_args=list(names))
    graph.recompile()


def _single_input(captured: Captured) -> TensorInfo:
    if len(captured.inputs) != 1 or len(captured.outputs) != 1 or captured.inputs[0].dtype != "float32":
        raise Unsupported(f"{captured.name}: only models with one float input and one output can be trained like this.")
    return captured.inputs[0]


def _freed(graph: Any, captured: Captured, values: np.ndarray) -> bool:
    batch = max(captured.batches) if captured.inputs[0].shape[0] < 0 else captured.inputs[0].shape[0]
    with tempfile.TemporaryDirectory(prefix="edge-deploy-") as scratch:
        path = Path(scratch, "few.npz")
        save_arrays({captured.inputs[0].name: values[: 3 * batch]}, path)
        return free_batch(graph, Samples(path=path, inputs=captured.inputs, batch=batch))


def _check_labels(captured: Captured, training: Images, plan: QatPlan) -> None:
    if plan.distill == 1:
        return
    classes = captured.outputs[0].shape[-1]
    labels = training.labels
    if not np.isfinite(labels).all():
        raise BadInput("training samples without labels: add them as y, or train with --distill 1.")
    if classes < 2 or labels.min() < 0 or labels.max() >= classes:
        raise BadInput(
            f"labels run from {labels.min():g} to {labels.max():g}; the model has {classes} outputs: give labels that "
            "are its classes, or train with --distill 1."
        )


def _trained(
    net: QatNet,
    teacher: Any,
    training: Images,
    validation: Images,
    plan: QatPlan,
    info: TensorInfo,
    is_probability: bool,
    progress: Callable[[int, float], None],
) -> QatResult:
    torch = require("torch", extra="export-executorch")
    rng = np.random.default_rng(plan.seed)
    held = _held(validation, plan, info)
    taught_held = _answers(teacher, held, plan.batch)
    wanted = taught_held[: len(validation.values)]
    _watch(net, training, plan, rng)
    found = [(name, p) for name, p in net.graph.named_parameters() if p.requires_grad]
    weights = [p for name, p in found if not name.endswith("_log")]
    steps = [p for name, p in found if name.endswith("_log")]
    # Everything is relative to its size, so that one rate fits all layers.
    optimiser = torch.optim.Adam([{"params": weights, "rate": 1.0}, {"params": steps, "rate": 0.5}], lr=plan.rate)
    total = plan.epochs * -(-len(training.values) // plan.batch)

    def distance(answers: np.ndarray) -> float:
        own, goal = (_scores(torch.from_numpy(each), is_probability) for each in (answers, taught_held))
        return float(_loss(own, goal, None, 1.0))

    kept = _answers(net.graph, held, plan.batch)
    best = (distance(kept), 0, _state(net))
    curve = []
    step = 0
    for epoch in range(plan.epochs):
        if epoch >= plan.frozen_from * plan.epochs:
            net.freeze_norms()
        if epoch >= max(plan.frozen_from, AVERAGED) * plan.epochs:
            net.freeze_averages()
        _train_mode(net, True)
        for images, labels in _batches(training, plan, info, rng):
            for group in optimiser.param_groups:
                group["lr"] = plan.rate * group["rate"] * 0.5 * (1 + math.cos(math.pi * step / total))
            with torch.no_grad():
                taught = _scores(teacher(images), is_probability)
            loss = _loss(_scores(net.graph(images), is_probability), taught, labels, plan.distill)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            step += 1
        _train_mode(net, False)
        answers = _answers(net.graph, held, plan.batch)
        curve.append(_agreement(wanted, answers[: len(wanted)]))
        progress(epoch + 1, curve[-1])
        # Later epochs have steadier statistics: the last of equals is kept.
        if (found_distance := distance(answers)) <= best[0]:
            best, kept = (found_distance, epoch + 1, _state(net)), answers
    net.graph.load_state_dict(best[2])
    _train_mode(net, False)
    return QatResult(
        curve=tuple(curve),
        best_epoch=best[1],
        answers=kept[: len(wanted)],
        float_answers=wanted,
        layers=len(net.layers),
        folded_norms=sum(layer.has_norm for layer in net.layers.values()),
    )


def _held(validation: Images, plan: QatPlan, info: TensorInfo) -> np.ndarray:
    """Validation samples; behind them moved copies, where training images are moved."""
    moved = _moved(validation.values, plan, info, np.random.default_rng(plan.seed))
    return validation.values if moved is validation.values else np.concatenate((validation.values, moved))


def _state(net: QatNet) -> dict[str, Any]:
    return {name: value.detach().clone() for name, value in net.graph.state_dict().items()}


def _train_mode(net: QatNet, mode: bool) -> None:
    # An exported graph refuses train(); its own operators know no modes.
    for module in (*net.layers.values(), *net.ranges.values()):
        module.train(mode)


def _watch(net: QatNet, training: Images, plan: QatPlan, rng: np.random.Generator) -> None:
    """Rounded weights to start from, and ranges: of some batches through these weights, activations still float."""
    torch = require("torch", extra="export-executorch")
    _train_mode(net, False)
    order = rng.permutation(len(training.values))[: WATCHED_BATCHES * plan.batch]

    def batches() -> Iterator[Any]:
        for start in range(0, len(order), plan.batch):
            yield torch.from_numpy(training.values[order[start : start + plan.batch]])

    start_rounded(net, batches(), len(order))
    for activation in net.ranges.values():
        activation.is_watching, activation.is_quantizing = True, False
    with torch.no_grad():
        for batch in batches():
            net.graph(batch)
    for activation in net.ranges.values():
        activation.is_watching, activation.is_quantizing = False, True


def _answers(graph: Any, values: np.ndarray, batch: int) -> np.ndarray:
    torch = require("torch", extra="export-executorch")
    with torch.no_grad():
        found = [_first(graph(torch.from_numpy(values[at : at + batch]))) for at in range(0, len(values), batch)]
    answers: np.ndarray = torch.cat(found).reshape(len(values), -1).numpy()
    return answers


def _agreement(wanted: np.ndarray, answers: np.ndarray) -> float:
    if wanted.shape[1] > 1:
        return float((wanted.argmax(1) == answers.argmax(1)).mean())
    return float(1.0 - np.square(wanted - answers).sum() / max(float(np.square(wanted).sum()), 1e-30))


def _first(found: Any) -> torch.Tensor:
    result: torch.Tensor = found[0] if isinstance(found, (tuple, list)) else found
    return result


def _scores(found: Any, is_probability: bool) -> Any:
    """Logits, or logarithms of probabilities, which differ from them by a constant."""
    values = _first(found)
    values = values.reshape(len(values), -1)
    return values.clamp(min=SMALLEST_PROBABILITY).log() if is_probability and values.shape[1] > 1 else values


def _loss(scores: Any, taught: Any, labels: Any, distill: float) -> Any:
    torch = require("torch", extra="export-executorch")
    functional = torch.nn.functional
    if scores.shape[1] == 1:
        return functional.mse_loss(scores, taught)
    loss: Any = 0.0
    if distill > 0:
        soft = functional.log_softmax(scores / TEMPERATURE, 1)
        goal = functional.log_softmax(taught / TEMPERATURE, 1)
        loss = distill * TEMPERATURE**2 * functional.kl_div(soft, goal, reduction="batchmean", log_target=True)
    if distill < 1:
        loss = loss + (1 - distill) * functional.cross_entropy(scores, labels)
    return loss


def _batches(
    training: Images, plan: QatPlan, info: TensorInfo, rng: np.random.Generator
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    torch = require("torch", extra="export-executorch")
    order = rng.permutation(len(training.values))
    labels = np.nan_to_num(training.labels).astype(np.int64)
    for start in range(0, len(order), plan.batch):
        chosen = order[start : start + plan.batch]
        if len(chosen) < 2:
            continue  # batch statistics of one sample
        images = _moved(training.values[chosen], plan, info, rng)
        yield torch.from_numpy(images), torch.from_numpy(labels[chosen])


def _moved(images: np.ndarray, plan: QatPlan, info: TensorInfo, rng: np.random.Generator) -> np.ndarray:
    """Mirrored and shifted copies; what comes in at an edge repeats its last pixels."""
    if images.ndim != 4 or not (plan.crop or plan.flip):
        return images
    is_last = info.layout == "NHWC" or (info.layout is None and images.shape[-1] in (1, 3, 4))
    found = images if is_last else images.transpose(0, 2, 3, 1)
    if plan.flip:
        mirrored = rng.random(len(found)) < 0.5
        found = np.where(mirrored[:, None, None, None], found[:, :, ::-1], found)
    if plan.crop:
        high, wide, by = *found.shape[1:3], plan.crop
        padded = np.pad(found, ((0, 0), (by, by), (by, by), (0, 0)), mode="edge")
        places = rng.integers(0, 2 * by + 1, (len(found), 2))
        found = np.stack([each[y : y + high, x : x + wide] for each, (y, x) in zip(padded, places, strict=True)])
    back = found if is_last else found.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(back, dtype=np.float32)
