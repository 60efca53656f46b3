"""Compare what an artifact computes on a device with answers that are known, as verify does it on this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from converters import verify as compare_with
from device_tests.device_session import open_on_device
from edge_deploy.core.artifact import Artifact, Comparison, Signature
from edge_deploy.core.errors import VerificationFailed

__all__ = ["compare_on_device"]


def compare_on_device(
    folder: Path,
    artifact: Artifact,
    *,
    device: str,
    runs: Sequence[compare_with.Run],
    feeds: Path,
    answers: Path,
    scores: Path | None = None,
    answers_are_its_own: bool = False,
) -> tuple[Comparison, ...]:
    """Run every sample through the artifact on the device; see `converters.verify.compare`.

    Args:
        answers_are_its_own: They come from the artifact on this machine, which generated C must equal in every bit.

    Raises:
        DeviceError: The device cannot be reached, or does not do what it must.
        VerificationFailed: A float32 artifact differs by more than rounding, or generated C at all.
    """
    inputs, reference = _arrays(feeds), _arrays(answers)
    found: list[Comparison] = []
    for run in runs:
        rehearsal = _Rehearsal(next(each for each in artifact.signatures if each.name == run.signature))
        compare_with.run_all(rehearsal, artifact, inputs)
        batch = next(iter(rehearsal.batches[0].values())).shape[0]
        with open_on_device(folder, device=device, signature=run.signature, threads=run.threads, batch=batch) as there:
            performance = _Performance(rehearsal.signature, there.run_many(rehearsal.batches))
            kernels = there.kernels
        outputs = compare_with.run_all(performance, artifact, inputs)
        if scores is not None and not found:
            np.save(scores, next(iter(outputs.values())))
        found.append(
            compare_with.compare_arrays(
                reference, outputs, kernels=kernels, threads=run.threads, signature=run.signature
            )
        )
    if artifact.spec.is_float:
        compare_with.check_float(found)
    if (
        artifact.format == "c"
        and answers_are_its_own
        and any(each.snr_db < compare_with.IDENTICAL_DB for each in found)
    ):
        raise VerificationFailed(
            f"{folder} on {device}: generated C gave other values than on this machine (largest difference "
            f"{max(each.max_error for each in found):g}): every bit must be the same."
        )
    return tuple(found)


class _Rehearsal:
    """A session that only writes down what it is asked, so that all of it can travel at once."""

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self.batches: list[dict[str, np.ndarray]] = []

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.batches.append({name: np.array(array) for name, array in inputs.items()})
        rows = len(next(iter(inputs.values())))
        return {
            info.name: np.zeros([rows if size == -1 else size for size in info.shape], np.dtype(info.dtype))
            for info in self.signature.outputs
        }


class _Performance:
    """A session that gives in turn the answers that came back."""

    def __init__(self, signature: Signature, answers: Sequence[dict[str, np.ndarray]]) -> None:
        self.signature = signature
        self._answers = iter(answers)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return next(self._answers)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
