"""Find images whose bytes lie in another layout than the model's: smooth across the wrong axes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from converters.calibration.finding import Finding
from edge_deploy.core.tensor import TensorInfo

__all__ = ["misplaced_channels", "roughness"]

MOST_SAMPLES = 64
MOST_CHANNELS = 16  # what is wider is a feature map; neighbours in it need not resemble each other
SMOOTH = 0.6  # roughness of real images is mostly below 0.5; of noise it is 1
CLEARLY_SMOOTHER = 0.6


def misplaced_channels(array: np.ndarray, info: TensorInfo) -> Iterator[Finding]:
    """A finding when the images are smooth only if their memory is read in the other layout.

    An array of [n, h, w, c] that was reshaped, not transposed, to [n, c, h, w] has the right shape and shows c x 3
    smeared copies; the other way round likewise. Images differ little between neighbouring pixels, so the layout in
    which they do is the true one.

    Args:
        array: [samples, ...] of the input `info`.
    """
    if array.ndim != 4 or array.dtype.kind not in "fiu":
        return
    layout = info.layout or ("NCHW" if array.shape[1] < array.shape[3] else "NHWC")
    images = array[:MOST_SAMPLES].astype(np.float64)
    if layout == "NCHW":
        count, channels, height, width = images.shape
        stated, other = images.transpose(0, 2, 3, 1), images.reshape(count, height, width, channels)
    else:
        count, height, width, channels = images.shape
        stated, other = images, images.reshape(count, channels, height, width).transpose(0, 2, 3, 1)
    if not 1 < channels <= MOST_CHANNELS or min(height, width) < 4:
        return
    have, would = roughness(stated), roughness(other)
    if would < SMOOTH and would < CLEARLY_SMOOTHER * have:
        wrong = "NHWC" if layout == "NCHW" else "NCHW"
        yield Finding(
            severity="serious",
            kind="layout",
            where=info.name,
            text=f"the model takes {layout}, the samples look like {wrong} that was reshaped: neighbouring pixels "
            f"differ by {have:.2f} of the contrast as given and by {would:.2f} if read as {wrong}.",
            remedy="Transpose the axes (numpy.transpose), do not reshape.",
        )


def roughness(images: np.ndarray) -> float:
    """Mean difference of neighbours over mean difference of far pixels, of the rougher direction.

    Args:
        images: [n, h, w, c]. 1 for noise, near 0 for smooth images.
    """
    turned = np.roll(images, (images.shape[1] // 2, images.shape[2] // 2), axis=(1, 2))
    contrast = float(np.abs(images - turned).mean())
    if contrast == 0.0:
        return 1.0
    down = float(np.abs(np.diff(images, axis=1)).mean())
    across = float(np.abs(np.diff(images, axis=2)).mean())
    return max(down, across) / contrast
