"""What a lossy codec costs at a cut: both halves run on the same samples, with the codec between them and without."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edge_deploy.core.artifact import Artifact, PairedDifference
from edge_deploy.core.dataset import check_samples
from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import dequantize_output, encode_input
from edge_deploy.zoo.datasets import open_dataset
from edge_deploy.zoo.description import find_description
from edge_deploy.zoo.metrics import paired_difference
from runtimes.codecs import load_codec
from runtimes.contracts import Codec, Session
from runtimes.folder import read_artifact
from runtimes.session import open_session

__all__ = ["CodecLoss", "codec_loss"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecLoss:
    """One codec at one cut.

    Attributes:
        bytes_raw: Of the boundary of one call, uncoded; `bytes_coded`: with the codec.
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

    @property
    def drop(self) -> float:
        """What `Constraints.accuracy_drop` takes: the loss of the metric, or of agreement where there are no labels."""
        return -self.difference.difference if self.difference is not None else 1.0 - self.agreement


def codec_loss(cut: Path | str, codec: str, evaluate: Path | str, *, limit: int | None = None) -> CodecLoss:
    """Run the halves that `split` wrote with a codec between them.

    Args:
        cut: The folder of one cut, with `head` and `tail` in it.
        evaluate: Samples: .npz, .npy or a data set description, with labels for accuracy or AUC.
        limit: Take that many samples at most.

    Raises:
        BadInput: Not the folder of a cut with two halves, data that does not fit, or no such codec.
    """
    folder, coder = Path(cut), load_codec(codec)
    missing = [side for side in ("head", "tail") if not (folder / side).is_dir()]
    if missing:
        raise BadInput(f"{folder}: has no {' and no '.join(missing)}; give the folder of one cut that `split` wrote.")
    head = read_artifact(folder / "head")
    samples, labels = _samples(head, Path(evaluate), limit)
    with_codec, without, sizes = [], [], (0, 0)
    first, second = open_session(folder / "head"), open_session(folder / "tail")
    try:
        for feed in samples:
            known = feed | first.run({info.name: feed[info.name] for info in first.signature.inputs})
            plain, coded, sizes = _both(second, known, coder)
            without.append(plain)
            with_codec.append(coded)
    finally:
        first.close()
        second.close()
    raw, coded_scores = np.concatenate(without)[: len(labels)], np.concatenate(with_codec)[: len(labels)]
    known_labels = all(label is not None for label in labels)
    difference = None
    if known_labels:
        answers = np.array(labels, dtype=float)
        metric = "accuracy" if raw.shape[-1] > 1 else "auc"
        difference = paired_difference(metric, answers, raw, coded_scores)  # type: ignore[arg-type]  # both are metrics
    return CodecLoss(
        cut=folder.name,
        codec=codec,
        samples=len(labels),
        bytes_raw=sizes[0],
        bytes_coded=sizes[1],
        agreement=float(np.mean(_choice(raw) == _choice(coded_scores))),
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


def _both(
    tail: Session, known: Mapping[str, np.ndarray], coder: Codec
) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """The tail's first output without and with the codec, and the bytes of the boundary."""
    arrays = [known[info.name] for info in tail.signature.inputs]
    # A batch that the model leaves open is as large as this one.
    tensors = [replace(info, shape=array.shape) for info, array in zip(tail.signature.inputs, arrays, strict=True)]
    payload = coder.encode(arrays, tensors)
    decoded = dict(zip([info.name for info in tensors], coder.decode(payload, tensors), strict=True))
    info = tail.signature.outputs[0]
    plain = dequantize_output(tail.run({info.name: known[info.name] for info in tensors})[info.name], info)
    coded = dequantize_output(tail.run(decoded)[info.name], info)
    size = load_codec("raw").encoded_bytes(tensors)
    return _rows(plain), _rows(coded), (size, len(payload))


def _rows(scores: np.ndarray) -> np.ndarray:
    return scores.reshape(scores.shape[0], -1) if scores.ndim > 1 else scores.reshape(-1, 1)


def _choice(scores: np.ndarray) -> np.ndarray:
    return scores.argmax(axis=1) if scores.shape[1] > 1 else scores[:, 0] >= 0.5
