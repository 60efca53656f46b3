"""The nets of `make bench-ptq` beside those of `make bench-models`, and where their samples come from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from converters.samples import random_samples
from edge_deploy.bench.models import DESCRIPTIONS, Net
from edge_deploy.core.tensor import TensorInfo
from edge_deploy.zoo.datasets import open_dataset
from edge_deploy.zoo.squeezenet import checkpoint_of_arrays

__all__ = ["Wanted", "random_sets", "shaped_digits", "wanted_nets"]

DIGIT = TensorInfo(name="image", shape=(1, 28, 28, 1), dtype="float32", layout="NHWC")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A net and the agreement of its INT8 artifacts with float that is wanted.

    Attributes:
        shape: Digits are turned into arrays of this shape, times `factor`, where the net's input is no image.
    """

    net: Net
    agreement: float
    shape: tuple[int, ...] = ()
    factor: float = 1.0


def wanted_nets(data: Path, work: Path) -> tuple[Wanted, ...]:
    """Nets with labelled data of their own.

    Args:
        work: Folder for what must be made first, such as a checkpoint.
    """
    models = data / "models"

    def digits(name: str) -> Wanted:
        source = str(models / "tinymaix_mnist" / f"{name}.h5")
        return Wanted(net=_net(name, source, "mnist_train12k.toml", "mnist_evaluate.toml"), agreement=0.99)

    def onnx_digits(name: str, shape: tuple[int, ...], factor: float) -> Wanted:
        source = str(models / "mnist_onnx" / f"{name}.onnx")
        net = _net(f"mnist_onnx {name}", source, "mnist_train12k.toml", "mnist_evaluate.toml")
        return Wanted(net=net, agreement=0.99, shape=shape, factor=factor)

    squeezenet = Net(
        name="SqueezeNet 1.1",
        source="edge_deploy.zoo.squeezenet:squeezenet11",
        weights=str(work / "squeezenet11.pt"),
        inputs=("image:1,3,224,224",),
        calibrate="imagenet_sample_calibrate_normalised.toml",
        evaluate="imagenet_sample_evaluate_normalised.toml",
        stock=("TensorFlow", "PT2E"),
    )
    work.mkdir(parents=True, exist_ok=True)
    if not Path(str(squeezenet.weights)).exists():
        arrays = models / "imagenet_squeezenet11_nchw_npy" / "weights"
        checkpoint_of_arrays(arrays, Path(str(squeezenet.weights)))
    keywords = str(models / "mlperf_tiny_kws_dscnn" / "kws_ref_model")
    return (
        Wanted(net=_net("KWS DS-CNN", keywords, "kws01_calibrate.toml", "kws01_evaluate.toml"), agreement=0.98),
        Wanted(net=squeezenet, agreement=0.90),
        onnx_digits("model", (1, 28, 28), 255.0),
        onnx_digits("pytorch", (784,), 1.0),
        *(digits(name) for name in ("mnist_valid", "mnist_dw", "mnist_resnet", "mnist_fc")),
    )


def _net(name: str, source: str, calibrate: str, evaluate: str) -> Net:
    return Net(name=name, source=source, calibrate=calibrate, evaluate=evaluate, stock=())


def shaped_digits(wanted: Wanted, work: Path, *, limit: int) -> tuple[Path, Path]:
    """Calibration and evaluation digits as npz files in the shape that the net takes."""
    files = []
    for role, description, most in (
        ("calibrate", wanted.net.calibrate, limit),
        ("evaluate", wanted.net.evaluate, None),
    ):
        samples = list(open_dataset(DESCRIPTIONS / description, inputs=(DIGIT,), limit=most))
        images = np.stack([sample.inputs[DIGIT.name].reshape(wanted.shape) for sample in samples])
        labels = np.array([sample.label for sample in samples])
        file = work / f"{wanted.net.name} {role}.npz".replace(" ", "_")
        np.savez(file, x=(images * wanted.factor).astype(np.float32), y=labels)
        files.append(file)
    return files[0], files[1]


def random_sets(info: TensorInfo, work: Path, *, count: int) -> tuple[Path, Path]:
    """Seeded random samples of a net's only input to calibrate with, and others to compare on, as npz files."""
    files = []
    for role, seed in (("calibrate", 1), ("evaluate", 2)):
        samples = random_samples((info,), count, seed=seed)
        files.append(work / f"random_{role}.npz")
        np.savez(files[-1], x=np.stack([sample.inputs[info.name] for sample in samples]))
    return files[0], files[1]
