"""Open a data set for a model: .npz, .npy, a folder of images, or a .toml description of items and labels.

See `image_folder` and `description`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_deploy.core.dataset import Dataset, Sample
from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo
from edge_deploy.zoo.array_files import open_npy, open_npz
from edge_deploy.zoo.decoding import decode
from edge_deploy.zoo.description import Description, Split, read_description
from edge_deploy.zoo.image_folder import read_image_folder
from edge_deploy.zoo.item_labels import find_labels
from edge_deploy.zoo.items import Item, find_items
from edge_deploy.zoo.pixels import pixel_mean_and_std

__all__ = ["open_dataset"]


def open_dataset(path: Path, *, inputs: tuple[TensorInfo, ...], limit: int | None = None) -> Dataset:
    """The samples at `path` in the terms of a model with these inputs; decoded one by one as they are asked for.

    Args:
        limit: Take that many samples at most. Described items come in the order of their bytes' sha256, so that the
            first ones are a fair sample.

    Raises:
        BadInput: Nothing there, an unknown kind of file, a folder without images, or data that does not fit
            description or model.
        MissingExtra: Images need pillow, which is not installed.
    """
    if limit is not None and limit < 1:
        raise BadInput(f"{path}: limit = {limit}: must be at least 1.")
    if path.is_dir():
        return _image_folder(path, inputs, limit)
    if not path.is_file():
        raise BadInput(
            f"{path}: no such file; data sets are .npz or .npy files, folders of images, .toml descriptions."
        )
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return open_npz(path, inputs, limit)
    if suffix == ".npy":
        return open_npy(path, inputs, limit)
    if suffix == ".toml":
        return _described(path, inputs, limit)
    raise BadInput(f"{path}: {suffix or 'no suffix'}: data sets are .npz or .npy files, or .toml descriptions.")


@dataclass(frozen=True, slots=True, kw_only=True)
class _DescribedDataset:
    name: str
    items: tuple[Item, ...]
    labels: tuple[float, ...] | None
    description: Description
    input: TensorInfo

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Sample]:
        for index, item in enumerate(self.items):
            values = decode(item.read(), self.description, self.input, where=f"{self.name}: {item.name}")
            label = None if self.labels is None else self.labels[index]
            yield Sample(inputs={self.input.name: values}, label=label)

    @property
    def pixel_mean(self) -> tuple[float, ...]:
        return pixel_mean_and_std(self.description.preprocess, self.input)[0]

    @property
    def pixel_std(self) -> tuple[float, ...]:
        return pixel_mean_and_std(self.description.preprocess, self.input)[1]


def _described(path: Path, inputs: tuple[TensorInfo, ...], limit: int | None) -> Dataset:
    description = read_description(path)
    _refuse_many_inputs(path, inputs)
    items = find_items(description.items, path.parent)
    labels = None
    if description.labels is not None:
        labels = find_labels(description.labels, path.parent, [item.name for item in items])
    return _dataset(path, description, items, labels, inputs[0], limit)


def _image_folder(path: Path, inputs: tuple[TensorInfo, ...], limit: int | None) -> Dataset:
    _refuse_many_inputs(path, inputs)
    description, items, labels = read_image_folder(path, inputs[0])
    return _dataset(path, description, items, labels, inputs[0], limit)


def _refuse_many_inputs(path: Path, inputs: tuple[TensorInfo, ...]) -> None:
    if len(inputs) != 1:
        names = ", ".join(info.name for info in inputs)
        raise BadInput(f"{path}: describes one input, the model has {names}; give an .npz with these arrays.")


def _dataset(
    path: Path,
    description: Description,
    items: list[Item],
    labels: list[float] | None,
    wanted: TensorInfo,
    limit: int | None,
) -> Dataset:
    order = _part(_digests(items), description.split)
    for most in (description.limit, limit):
        order = order[:most]
    if not order:
        raise BadInput(f"{path}: split.part = {description.split.part}: nothing is left of {len(items)} items.")
    return _DescribedDataset(
        name=path.name,
        items=tuple(items[index] for index in order),
        labels=None if labels is None else tuple(labels[index] for index in order),
        description=description,
        input=wanted,
    )


def _digests(items: list[Item]) -> list[tuple[bytes, int]]:
    """sha256 of every item's bytes with its place, sorted: an order that is the same everywhere."""
    return sorted((hashlib.sha256(item.read()).digest(), index) for index, item in enumerate(items))


def _part(order: list[tuple[bytes, int]], split: Split) -> list[int]:
    first = round(len(order) * split.fraction)
    while 0 < first < len(order) and order[first][0] == order[first - 1][0]:
        first += 1  # copies of one item stay on one side
    places = [index for _, index in order]
    return {"all": places, "calibrate": places[:first], "evaluate": places[first:]}[split.part]
