"""What reaches the batch norms of a Keras file, whose float TFLite file has them folded away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from converters.calibration.accumulate import Moments
from converters.calibration.statistics import NormStatistics

__all__ = ["observe_norms"]

BATCH = 16


def observe_norms(path: Path, samples: dict[str, np.ndarray]) -> tuple[NormStatistics, ...]:
    """The first batch norm of a `.keras` or `.h5` file, in the order of its layers.

    Args:
        samples: Arrays [samples, ...] by input name.

    Raises:
        EdgeDeployError: The file cannot be loaded; see `load_keras`.
    """
    from converters.loading.keras_model import load_keras

    loaded = load_keras(path)
    norm = next((layer for layer in loaded.layers() if type(layer).__name__ == "BatchNormalization"), None)
    if norm is None or norm.moving_mean is None:
        return ()
    moments = Moments()
    call = norm.call
    axis = norm.axis[0] if not isinstance(norm.axis, int) else norm.axis

    def watched(inputs: Any, *arguments: Any, **options: Any) -> Any:
        moments.see(np.asarray(inputs), axis)
        return call(inputs, *arguments, **options)

    norm.call = watched
    count = len(next(iter(samples.values())))
    fixed = loaded.inputs[0].shape[0]
    step = fixed if fixed > 0 else BATCH
    for start in range(0, count, step):
        rows = np.arange(start, start + step) % count if fixed > 0 else np.arange(start, min(start + step, count))
        loaded.call([samples[info.name][rows].astype(info.dtype) for info in loaded.inputs])
    if not moments.count:
        return ()
    variance = np.asarray(norm.moving_variance) + float(norm.epsilon)
    return (moments.against(norm.name, np.asarray(norm.moving_mean), variance),)
