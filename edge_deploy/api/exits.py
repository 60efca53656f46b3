"""Fit the thresholds of early exits on what an artifact really computes, and write them into its manifest.

Thresholds belong to the quantized artifact: confidences move when weights are rounded. Which samples end where follows
RANet's budgets (Yang et al., CVPR 2020, arXiv 2003.07326): of K exits, the end being the last one, exit k gets a share
proportional to q^k, and those leave that are the most confident among the samples still there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_deploy.api.cuts import list_cuts, model_to_cut
from edge_deploy.core.artifact import MANIFEST, Artifact
from edge_deploy.core.dataset import check_samples
from edge_deploy.core.early_exit import EarlyExit, confidence, meaning_of
from edge_deploy.core.errors import BadInput
from edge_deploy.core.layer_graph import LayerGraph
from edge_deploy.core.serde import write_json
from edge_deploy.core.signing import SIGNATURE
from edge_deploy.core.tensor import Meaning, TensorInfo, dequantize_output, encode_input
from edge_deploy.zoo.datasets import open_dataset
from edge_deploy.zoo.description import find_description
from runtimes.folder import read_artifact
from runtimes.session import open_session

__all__ = ["ExitPoint", "ExitsFitted", "fit_exits", "ran_thresholds", "shares_of_budget"]

# From nearly everything at the first exit to nearly nothing.
BUDGETS = tuple(float(q) for q in np.geomspace(0.02, 50.0, 120))
NEVER = 2.0  # no confidence reaches it


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitPoint:
    """What one budget comes to.

    Attributes:
        q: Shares of the exits are proportional to q, q^2, ...; 0 for thresholds that were given.
        shares: Of the samples: that end at each exit, and at the end.
        agreement: Share of the samples whose answer is the whole model's; `accuracy` against labels, None without.
        mean_bytes: That cross a sample, at the first cut behind the last exit, uncoded.
        mean_macs: Of edge and cloud together, a sample.
    """

    q: float
    thresholds: tuple[float, ...]
    shares: tuple[float, ...]
    agreement: float
    accuracy: float | None
    mean_bytes: float
    mean_macs: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitsFitted:
    """What was fitted.

    Attributes:
        chosen: On the samples that it was fitted on; `held_out`: the same thresholds on others, None without any.
        curve: One point a budget, from the most to the fewest samples at the exits.
        accuracy: Of the end alone, on the samples of the fit; None without labels.
        cut: The first legal one behind the last exit: the rest is the cloud's; empty where none is legal.
    """

    exits: tuple[EarlyExit, ...]
    chosen: ExitPoint
    held_out: ExitPoint | None
    curve: tuple[ExitPoint, ...]
    samples: int
    accuracy: float | None
    held_out_accuracy: float | None
    cut: str
    cut_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Seen:
    """Confidence and choice of every exit, the end being the last: shape (K, n)."""

    sure: np.ndarray
    choice: np.ndarray
    labels: np.ndarray | None


def fit_exits(
    artifact: Path | str,
    calibrate: Path | str,
    *,
    evaluate: Path | str | None = None,
    exits: Sequence[str] = (),
    max_drop: float = 0.01,
    q: float | None = None,
    share: float | None = None,
    write: bool = True,
    limit: int | None = None,
    progress: Callable[[str], None] = lambda stage: None,
) -> ExitsFitted:
    """Choose thresholds for a model whose outputs are its exits, the last one being the end.

    Args:
        artifact: The folder that convert wrote; its manifest gets the exits.
        calibrate: Samples; with labels the loss of accuracy is what counts, else that of agreement with the end.
        evaluate: Other samples, to judge the thresholds on.
        exits: Names of outputs; empty for all that look like the last one.
        max_drop: The largest loss on the samples of the fit.
        q: RANet's budget; `share`: of the samples that shall not reach the end. Either takes the place of `max_drop`.

    Raises:
        BadInput: The model has no second output, the data does not fit, or the manifest is signed.
    """
    folder = Path(artifact)
    known = read_artifact(folder)
    if write and (folder / SIGNATURE).exists():
        raise BadInput(f"{folder}: is signed; fit the exits first, then sign (`edge-deploy sign`).")
    graph = model_to_cut(folder).graph
    names = _exits_of(known, graph, exits)
    progress("run the calibration samples")
    meaning, seen = _run(folder, known, names, calibrate, limit)
    places = _places(known, graph)
    bytes_behind, cut, macs = _costs(folder, graph, [places.get(name, -1) for name in names])
    curve = tuple(
        _point(seen, b, ran_thresholds(seen.sure, shares_of_budget(b, len(names))), bytes_behind, macs) for b in BUDGETS
    )
    if q is not None:
        chosen = _point(seen, q, ran_thresholds(seen.sure, shares_of_budget(q, len(names))), bytes_behind, macs)
    elif share is not None:
        chosen = min(curve, key=lambda point: abs(1.0 - point.shares[-1] - share))
        if len(names) == 2:
            chosen = _point(seen, 0.0, ran_thresholds(seen.sure, (share, 1.0 - share)), bytes_behind, macs)
    else:
        chosen = _cheapest(seen, curve, max_drop, bytes_behind, macs, len(names))
    held_out = held_seen = None
    if evaluate is not None:
        progress("run the evaluation samples")
        _, held_seen = _run(folder, known, names, evaluate, limit)
        held_out = _point(held_seen, chosen.q, chosen.thresholds, bytes_behind, macs)
    found = tuple(
        EarlyExit(
            output=name,
            answer=names[-1],
            threshold=chosen.thresholds[place],
            meaning=meaning,
            layer=graph.layers[places[name]].name if name in places else "",
            share=sum(chosen.shares[: place + 1]),
            agreement=chosen.agreement,
            samples=seen.sure.shape[1],
        )
        for place, name in enumerate(names[:-1])
    )
    if write:
        write_json(dataclasses.replace(known, exits=found), folder / MANIFEST)
    return ExitsFitted(
        exits=found,
        chosen=chosen,
        held_out=held_out,
        curve=curve,
        samples=seen.sure.shape[1],
        accuracy=_accuracy(seen, seen.choice[-1]),
        held_out_accuracy=None if held_seen is None else _accuracy(held_seen, held_seen.choice[-1]),
        cut=cut,
        cut_bytes=round(bytes_behind),
    )


def shares_of_budget(q: float, exits: int) -> tuple[float, ...]:
    """RANet's shares: proportional to q, q^2, ... q^K, adding up to 1.

    Raises:
        BadInput: `q` is not above 0.
    """
    if not 0 < q < np.inf:
        raise BadInput(f"exits: q = {q}: must be above 0; below 1 for more samples at the first exits.")
    powers = np.cumsum(np.full(exits, np.log(q)))
    weights = np.exp(powers - powers.max())
    return tuple((weights / weights.sum()).tolist())


def ran_thresholds(sure: np.ndarray, shares: Sequence[float]) -> tuple[float, ...]:
    """Thresholds of all exits but the end, that let these shares of the samples leave at each.

    Args:
        sure: Confidence at each exit, shape (K, n).
    """
    count = sure.shape[1]
    there = np.ones(count, dtype=bool)
    found = []
    for place, share in enumerate(tuple(shares)[:-1]):
        leaving = min(round(share * count), int(there.sum()))
        ordered = np.sort(sure[place][there])[::-1]
        found.append(float(ordered[leaving - 1]) if leaving else NEVER)
        there &= sure[place] < found[-1]
    return tuple(found)


def _cheapest(
    seen: _Seen, curve: Sequence[ExitPoint], max_drop: float, bytes_behind: float, macs: Sequence[int], exits: int
) -> ExitPoint:
    """The point with the fewest samples at the end whose loss is within the limit; never leaving is always one."""
    accuracy = _accuracy(seen, seen.choice[-1])

    def loss(point: ExitPoint) -> float:
        return 1.0 - point.agreement if accuracy is None else accuracy - (point.accuracy or 0.0)

    never = _point(seen, 0.0, (NEVER,) * (exits - 1), bytes_behind, macs)
    return min((point for point in (*curve, never) if loss(point) <= max_drop), key=lambda point: point.shares[-1])


def _point(seen: _Seen, q: float, thresholds: Sequence[float], bytes_behind: float, macs: Sequence[int]) -> ExitPoint:
    there = np.ones(seen.sure.shape[1], dtype=bool)
    answers, shares = seen.choice[-1].copy(), []
    for place, threshold in enumerate(thresholds):
        leaves = there & (seen.sure[place] >= threshold)
        answers[leaves] = seen.choice[place][leaves]
        shares.append(float(leaves.mean()))
        there &= ~leaves
    shares.append(float(there.mean()))
    return ExitPoint(
        q=q,
        thresholds=tuple(thresholds),
        shares=tuple(shares),
        agreement=float((answers == seen.choice[-1]).mean()),
        accuracy=_accuracy(seen, answers),
        mean_bytes=shares[-1] * bytes_behind,
        mean_macs=float(np.dot(shares, macs)),
    )


def _accuracy(seen: _Seen, answers: np.ndarray) -> float | None:
    return None if seen.labels is None else float((answers == seen.labels).mean())


def _exits_of(artifact: Artifact, graph: LayerGraph, asked: Sequence[str]) -> tuple[str, ...]:
    """Names of the exits in the order in which the model makes them, and of the end."""
    outputs = {info.name: info for info in artifact.signatures[0].outputs}
    unknown = [name for name in asked if name not in outputs]
    if unknown:
        raise BadInput(f"exits: no output named {', '.join(unknown)}; the model has {', '.join(outputs)}.")
    order = _places(artifact, graph)
    ordered = sorted(outputs, key=lambda name: order.get(name, -1))
    end = ordered[-1]
    alike = [name for name in ordered[:-1] if outputs[name].shape == outputs[end].shape]
    names = [name for name in ordered[:-1] if name in asked] if asked else alike
    if not names:
        found = ", ".join(f"{name} {outputs[name].shape}" for name in ordered)
        raise BadInput(
            f"{artifact.name}: has no early exit: an exit is an output of its own, as wide as the last one ({found})."
        )
    wrong = [name for name in names if name not in alike]
    if wrong:
        raise BadInput(f"exits: {', '.join(wrong)}: must have the shape of {end}, {outputs[end].shape}.")
    return (*names, end)


def _run(
    folder: Path, artifact: Artifact, names: Sequence[str], data: Path | str, limit: int | None
) -> tuple[Meaning, _Seen]:
    """The whole model on every sample."""
    sources = artifact.source_inputs
    dataset = open_dataset(find_description(Path(data)), inputs=sources, limit=limit)
    check_samples(dataset, sources)
    by_name = {info.name: info for info in sources}
    labels: list[float | None] = []
    scores: list[list[np.ndarray]] = [[] for _ in names]
    session = open_session(folder)
    try:
        batch = max(session.signature.inputs[0].shape[0], 1)
        outputs: dict[str, TensorInfo] = {info.name: info for info in session.signature.outputs}
        for sample in dataset:
            feed = {
                info.name: encode_input(
                    np.repeat(np.asarray(sample.inputs[info.name])[None], batch, axis=0),
                    source=by_name[info.name],
                    target=info,
                )
                for info in session.signature.inputs
            }
            found = session.run(feed)
            for name, rows in zip(names, scores, strict=True):
                rows.append(dequantize_output(found[name], outputs[name]).reshape(batch, -1)[0])
            labels.append(sample.label)
    finally:
        session.close()
    if not labels:
        raise BadInput(f"{data}: holds no samples.")
    stacked = [np.stack(rows) for rows in scores]
    meaning = meaning_of(stacked[-1])
    wide = stacked[-1].shape[1] > 1
    side = 0.0 if meaning == "logit" else 0.5
    return meaning, _Seen(
        sure=np.stack([confidence(rows, meaning) for rows in stacked]),
        choice=np.stack([rows.argmax(axis=1) if wide else (rows[:, 0] >= side).astype(int) for rows in stacked]),
        labels=None if any(label is None for label in labels) else np.array(labels),
    )


def _costs(folder: Path, graph: LayerGraph, places: Sequence[int]) -> tuple[float, str, list[int]]:
    """Bytes of the first cut behind the last exit and its id; multiply-accumulates up to each exit and the end.

    Args:
        places: Of the layers that make the exits and the end; -1 for unknown.
    """
    sums = np.cumsum([layer.macs for layer in graph.layers] or [0])
    macs = [int(sums[place]) for place in places[:-1]] + [int(sums[-1])]
    legal = [item for item in list_cuts(folder).cuts if not item.refused and item.cut.up and item.cut.down]
    behind = max(places[:-1])
    after = [item for item in legal if len(item.cut.edge_layers) > behind] if behind >= 0 else []
    if not after:
        return 0.0, "", macs
    return float(after[0].cut.up_bytes), after[0].cut.id, macs


def _places(artifact: Artifact, graph: LayerGraph) -> dict[str, int]:
    """By name of an output: the place of the layer that makes it. Graphs may name it as the file does."""
    made = {tensor.name: place for place, layer in enumerate(graph.layers) for tensor in layer.outputs}
    names = [info.name for info in artifact.signatures[0].outputs]
    inner = graph.outputs if len(graph.outputs) == len(names) else names
    both = zip(names, inner, strict=True)
    return {name: made[name if name in made else tensor] for name, tensor in both if name in made or tensor in made}
