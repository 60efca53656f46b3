"""Published layer times for `edge_deploy.bench.predictor`: two tables, brought into the predictor's terms."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from edge_deploy.core.child import run_in_child
from edge_deploy.core.require import require
from partitioner.predictor.coefficients import FLOOR_SHARE, Sample
from partitioner.predictor.features import Work
from partitioner.study.scission import BlockTable, read_blocks

__all__ = ["KERAS_NETS", "keras_works", "neurosurgeon_samples", "scission_samples"]

BYTES = 4  # both tables are of float32 models
NPY_HEADER_BYTES = 128  # Scission gives sizes of .npy files
KERAS_NETS = {
    "vgg16": "VGG16",
    "vgg19": "VGG19",
    "xception": "Xception",
    "resnet50": "ResNet50",
    "resnet101": "ResNet101",
    "resnet152": "ResNet152",
    "resnet50v2": "ResNet50V2",
    "resnet101v2": "ResNet101V2",
    "resnet152v2": "ResNet152V2",
    "inception_v3": "InceptionV3",
    "inceptionresnet_v2": "InceptionResNetV2",
    "mobilenet": "MobileNet",
    "mobilenetv2": "MobileNetV2",
    "densenet121": "DenseNet121",
    "densenet169": "DenseNet169",
    "densenet201": "DenseNet201",
    "nasnetlarge": "NASNetLarge",
    "nasnetmobile": "NASNetMobile",
}


def neurosurgeon_samples(folder: Path) -> dict[str, list[Sample]]:
    """Configurations by kind of layer; times in the files are milliseconds."""
    makers: dict[str, tuple[str, Callable[[Mapping[str, float]], Work]]] = {
        "convolution": ("conv_lat.csv", _convolution),
        "depthwise convolution": ("dw_conv_lat.csv", _depthwise),
        "linear": ("linear_lat.csv", _linear),
        "max pooling": ("maxpool_lat.csv", _max_pool),
        "average pooling": ("avgpool_lat.csv", _average_pool),
        "batch norm": ("batchnorm_lat.csv", _batch_norm),
    }
    found = {}
    for kind, (name, make) in makers.items():
        with (folder / "edge" / name).open(newline="", encoding="utf-8") as file:
            rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
        mean_s = sum(row["latency"] for row in rows) / len(rows) / 1e3
        found[kind] = [
            Sample(works=(make(row),), seconds=row["latency"] / 1e3, floor_s=FLOOR_SHARE * mean_s) for row in rows
        ]
    return found


def _convolution(row: Mapping[str, float]) -> Work:
    out = math.ceil(row["HW"] / row["stride"]) ** 2
    weights = row["kernel"] ** 2 * row["Cin"] * row["Cout"]
    return Work(
        name="conv-float",
        macs=out * weights,
        moved_bytes=BYTES * (row["HW"] ** 2 * row["Cin"] + out * row["Cout"]),
        weight_bytes=BYTES * weights,
        out_channels=int(row["Cout"]),
        in_channels=int(row["Cin"]),
    )


def _depthwise(row: Mapping[str, float]) -> Work:
    out = math.ceil(row["HW"] / row["stride"]) ** 2
    weights = row["kernel"] ** 2 * row["Cin"]
    moved = BYTES * (row["HW"] ** 2 + out) * row["Cin"]
    return Work(name="depthwise-float", macs=out * weights, moved_bytes=moved, weight_bytes=BYTES * weights)


def _linear(row: Mapping[str, float]) -> Work:
    weights = row["in_features"] * row["out_features"]
    moved = BYTES * (row["in_features"] + row["out_features"])
    return Work(
        name="dense-float",
        macs=weights,
        moved_bytes=moved,
        weight_bytes=BYTES * weights,
        out_channels=int(row["out_features"]),
        in_channels=int(row["in_features"]),
    )


def _max_pool(row: Mapping[str, float]) -> Work:
    out = math.ceil(row["HW"] / row["stride"]) ** 2
    moved = BYTES * (row["HW"] ** 2 + out) * row["Cin"]
    # What a pooling compares or adds takes the place of multiply-accumulates.
    return Work(name="pool-float", macs=out * row["kernel"] ** 2 * row["Cin"], moved_bytes=moved, weight_bytes=0)


def _average_pool(row: Mapping[str, float]) -> Work:
    moved = BYTES * (row["HW"] ** 2 + row["output"] ** 2) * row["Cin"]
    return Work(name="pool-float", macs=row["HW"] ** 2 * row["Cin"], moved_bytes=moved, weight_bytes=0)


def _batch_norm(row: Mapping[str, float]) -> Work:
    moved = 2 * BYTES * row["HW"] ** 2 * row["Cin"]
    return Work(name="elementwise-float", macs=0, moved_bytes=moved, weight_bytes=4 * BYTES * row["Cin"])


def scission_samples(
    folder: Path, kept: Callable[[str, Callable[[], Any]], Any]
) -> tuple[dict[str, tuple[BlockTable, list[tuple[Work, ...]]]], dict[str, str]]:
    """By net: its blocks as measured, and the work of each; and why others are left out.

    The table does not say what layers do. That is read from the networks as Keras builds them, without weights; a net
    whose outputs differ in size from those of the table was built by another Keras and is left out.
    """
    found, left_out = {}, {}
    for name, table in read_blocks(folder / "layers.csv").items():
        if name not in KERAS_NETS:
            left_out[name] = "not a network of Keras"
            continue
        layers = kept(
            f"keras-{name}",
            lambda name=name: run_in_child(  # type: ignore[misc]  # bound now
                "edge_deploy.bench.predictor_tables:keras_works", {"name": KERAS_NETS[name]}, stage=f"build {name}"
            ),
        )
        problem = _mismatch(table, layers)
        if problem:
            left_out[name] = problem
            continue
        blocks = [
            tuple(Work(**work) for layer in layers[first : last + 1] for work in layer["works"])
            for first, last in zip(table.first, table.last, strict=True)
        ]
        found[name] = (table, blocks)
    return found, left_out


def _mismatch(table: BlockTable, layers: list[dict[str, Any]]) -> str:
    if table.last[-1] != len(layers) - 1:
        return f"{len(layers)} layers here, {table.last[-1] + 1} in the table"
    wrong = sum(
        layers[last]["values"] * BYTES + NPY_HEADER_BYTES != size
        for last, size in zip(table.last, table.bytes, strict=True)
    )
    return f"{wrong} of {len(table.last)} blocks have outputs of another size here" if wrong else ""


def keras_works(name: str) -> list[dict[str, Any]]:
    """What each layer of a network of Keras does, in the order of its list of layers; runs in a child process."""
    keras = require("tf_keras", extra="export-tflite")
    model = getattr(keras.applications, name)(weights=None)
    return [
        {
            "works": [{key: getattr(work, key) for key in Work.__slots__} for work in _keras_layer(layer)],
            "values": _count(layer.output_shape[0] if isinstance(layer.output_shape, list) else layer.output_shape),
        }
        for layer in model.layers
    ]


def _keras_layer(layer: Any) -> Iterator[Work]:
    kind = type(layer).__name__
    if kind in ("InputLayer", "Dropout"):
        return
    shapes = layer.input_shape if isinstance(layer.input_shape, list) else [layer.input_shape]
    read, made = sum(map(_count, shapes)), _count(layer.output_shape)
    moved, channels = BYTES * (read + made), layer.output_shape[-1]
    in_channels = shapes[0][-1]
    weights = BYTES * layer.count_params()
    if kind == "Conv2D":
        macs = made * math.prod(layer.kernel_size) * in_channels // layer.groups
        yield Work(
            name="conv-float",
            macs=macs,
            moved_bytes=moved,
            weight_bytes=weights,
            out_channels=channels,
            in_channels=in_channels,
        )
    elif kind == "DepthwiseConv2D":
        yield Work(
            name="depthwise-float", macs=made * math.prod(layer.kernel_size), moved_bytes=moved, weight_bytes=weights
        )
    elif kind == "SeparableConv2D":
        between = made // channels * in_channels
        macs = between * math.prod(layer.kernel_size)
        yield Work(name="depthwise-float", macs=macs, moved_bytes=BYTES * (read + between), weight_bytes=0)
        yield Work(
            name="conv-float",
            macs=made * in_channels,
            moved_bytes=BYTES * (between + made),
            weight_bytes=weights,
            out_channels=channels,
            in_channels=in_channels,
        )
    elif kind == "Dense":
        yield Work(
            name="dense-float",
            macs=in_channels * channels,
            moved_bytes=moved,
            weight_bytes=weights,
            out_channels=channels,
            in_channels=in_channels,
        )
    elif "Pool" in kind:
        yield Work(name="pool-float", macs=0, moved_bytes=moved, weight_bytes=0)
    elif kind in ("ZeroPadding2D", "Cropping2D", "Reshape", "Flatten", "Concatenate"):
        yield Work(name="move-float", macs=0, moved_bytes=moved, weight_bytes=0)
    else:
        yield Work(name="elementwise-float", macs=0, moved_bytes=moved, weight_bytes=weights)


def _count(shape: Any) -> int:
    return math.prod(size for size in shape[1:])
