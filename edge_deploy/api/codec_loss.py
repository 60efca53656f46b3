"""What codecs cost and save at a cut: both halves run on the same samples, with each codec between them and without."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edge_deploy.core.artifact import Artifact, PairedDifference
from edge_deploy.core.dataset import check_samples
from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo, dequantize_output, encode_input
from edge_deploy.zoo.datasets import open_dataset
from edge_deploy.zoo.description import find_description
from edge_deploy.zoo.metrics import paired_difference
from runtimes.codecs import load_codec
from runtimes.contracts import Codec, Session
from runtimes.folder import read_artifact
from runtimes.session import open_session

__all__ = ["CodecLoss", "CodecLosses", "codec_loss", "codec_losses", "cut_folders"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecLoss:
    """One codec at one cut.

    Attributes:
        bytes_raw: Of the boundary of one call, uncoded; `bytes_coded`: with the codec, the mean over calls, rounded.
        bytes_most: Of the largest call.
        encode_s, decode_s: Medians here, of one call.
        agreement: Share of samples whose highest output stays the same; of one output: whose side of one half does.
        difference: Of the metric with the codec from the one without, paired; None without labels.
    """

    cut: str
    codec: str
    samples: int
    bytes_raw: int
    bytes_coded: int
    agreement: float
    difference: PairedDifference | None = None
    bytes_most: int = 0
    encode_s: float = 0.0
    decode_s: float = 0.0

    @property
    def drop(self) -> float:
        """What `Constraints.accuracy_drop` takes: the loss of the metric, or of agreement where there are no labels."""
        return -self.difference.difference if self.difference is not None else 1.0 - self.agreement


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecLosses:
    """Everything that was measured in one go; what `plan` and `simulate` take as a file."""

    losses: tuple[CodecLoss, ...]

    def bytes_of(self, codec: str) -> dict[str, float]:
        """By cut: mean bytes of the coded boundary."""
        return {loss.cut: float(loss.bytes_coded) for loss in self.losses if loss.codec == codec}

    def drops_of(self, codec: str) -> dict[str, float]:
        """By cut: what the codec costs."""
        return {loss.cut: loss.drop for loss in self.losses if loss.codec == codec}


def codec_loss(cut: Path | str, codec: str, evaluate: Path | str, *, limit: int | None = None) -> CodecLoss:
    """Run the halves that `split` wrote with a codec between them.

    Args:
        cut: The folder of one cut, with `head` and `tail` in it.
        evaluate: Samples: .npz, .npy or a data set description, with labels for accuracy or AUC.
        limit: Take that many samples at most.

    Raises:
        BadInput: Not the folder of a cut with two halves, data that does not fit, or no such codec.
    """
    return codec_losses(cut, [codec], evaluate, limit=limit)[0]


def cut_folders(halves: Path | str) -> tuple[Path, ...]:
    """Folders of cuts with both halves: the folder itself, or those in it.

    Raises:
        BadInput: There are none.
    """
    folder = Path(halves)
    if (folder / "head").is_dir():
        return (folder,)
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    found = tuple(each for each in inside if (each / "head").is_dir() and (each / "tail").is_dir())
    if not found:
        raise BadInput(
            f"{folder}: holds no cut with a head and a tail; give the folder that `edge-deploy split` wrote."
        )
    return found


def codec_losses(
    cut: Path | str, codecs: Sequence[str], evaluate: Path | str, *, limit: int | None = None
) -> tuple[CodecLoss, ...]:
    """The same for several codecs on the same samples; raises as `codec_loss` does."""
    folder = Path(cut)
    coders = [load_codec(codec) for codec in codecs]
    missing = [side for side in ("head", "tail") if not (folder / side).is_dir()]
    if missing:
        raise BadInput(f"{folder}: has no {' and no '.join(missing)}; give the folder of one cut that `split` wrote.")
    head = read_artifact(folder / "head")
    samples, labels = _samples(head, Path(evaluate), limit)
    plain: list[np.ndarray] = []
    coded: list[list[_Coded]] = [[] for _ in coders]
    bytes_raw = 0
    first, second = open_session(folder / "head"), open_session(folder / "tail")
    try:
        for feed in samples:
            known = feed | first.run({info.name: feed[info.name] for info in first.signature.inputs})
            tensors = _boundary(second, known)
            bytes_raw = load_codec("raw").encoded_bytes(tensors)
            plain.append(_scores(second, {info.name: known[info.name] for info in tensors}))
            for coder, found in zip(coders, coded, strict=True):
                found.append(_with(coder, second, known, tensors))
    finally:
        first.close()
        second.close()
    return tuple(
        _loss(folder.name, codec, np.concatenate(plain), found, labels, bytes_raw)
        for codec, found in zip(codecs, coded, strict=True)
    )


class _Coded(NamedTuple):
    scores: np.ndarray
    size: int
    encode_s: float
    decode_s: float


def _loss(
    cut: str, codec: str, plain: np.ndarray, coded: Sequence[_Coded], labels: Sequence[float | None], bytes_raw: int
) -> CodecLoss:
    raw, with_codec = plain[: len(labels)], np.concatenate([each.scores for each in coded])[: len(labels)]
    difference = None
    if all(label is not None for label in labels):
        answers = np.array(labels, dtype=float)
        metric = "accuracy" if raw.shape[-1] > 1 else "auc"
        difference = paired_difference(metric, answers, raw, with_codec)  # type: ignore[arg-type]  # both are metrics
    return CodecLoss(
        cut=cut,
        codec=codec,
        samples=len(labels),
        bytes_raw=bytes_raw,
        bytes_coded=round(float(np.mean([each.size for each in coded]))),
        bytes_most=max(each.size for each in coded),
        encode_s=float(np.median([each.encode_s for each in coded])),
        decode_s=float(np.median([each.decode_s for each in coded])),
        agreement=float(np.mean(_choice(raw) == _choice(with_codec))),
        difference=difference,
    )


def _samples(head: Artifact, path: Path, limit: int | None) -> tuple[list[dict[str, np.ndarray]], list[float | None]]:
    """Feeds of the head's first signature, a batch at a time, the last one filled up; and the labels."""
    sources = head.source_inputs
    dataset = open_dataset(find_description(path), inputs=sources, limit=limit)
    check_samples(dataset, sources)
    found = list(dataset)
    if not found:
        raise BadInput(f"{path}: holds no samples.")
    signature = head.signatures[0]
    batch = max(signature.inputs[0].shape[0], 1)
    by_name = {info.name: info for info in sources}
    feeds = []
    for start in range(0, len(found), batch):
        part = [found[min(start + row, len(found) - 1)] for row in range(batch)]
        stacked = {name: np.stack([np.asarray(sample.inputs[name]) for sample in part]) for name in by_name}
        feeds.append(
            {
                info.name: encode_input(stacked[info.name], source=by_name[info.name], target=info)
                for info in signature.inputs
            }
        )
    return feeds, [sample.label for sample in found]


def _boundary(tail: Session, known: Mapping[str, np.ndarray]) -> list[TensorInfo]:
    """What the tail takes; a batch that the model leaves open is as large as this one."""
    return [replace(info, shape=known[info.name].shape) for info in tail.signature.inputs]


def _with(coder: Codec, tail: Session, known: Mapping[str, np.ndarray], tensors: Sequence[TensorInfo]) -> _Coded:
    """The tail's scores with the codec in between, and what coding took."""
    arrays = [known[info.name] for info in tensors]
    begun = time.perf_counter()
    payload = coder.encode(arrays, tensors)
    between = time.perf_counter()
    decoded = coder.decode(payload, tensors)
    done = time.perf_counter()
    feed = dict(zip([info.name for info in tensors], decoded, strict=True))
    return _Coded(_scores(tail, feed), len(payload), between - begun, done - between)


def _scores(tail: Session, feed: Mapping[str, np.ndarray]) -> np.ndarray:
    """The tail's first output."""
    info = tail.signature.outputs[0]
    return _rows(dequantize_output(tail.run(feed)[info.name], info))


def _rows(scores: np.ndarray) -> np.ndarray:
    return scores.reshape(scores.shape[0], -1) if scores.ndim > 1 else scores.reshape(-1, 1)


def _choice(scores: np.ndarray) -> np.ndarray:
    return scores.argmax(axis=1) if scores.shape[1] > 1 else scores[:, 0] >= 0.5
