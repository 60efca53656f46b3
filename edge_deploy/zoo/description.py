"""A data set in a few lines of TOML: where its items lie, how they are decoded, labelled, split and preprocessed.

    [items]
    path = "${EDGE_DEPLOY_DATA}/eval/mlperf_tiny_ic01/ic01.tar.gz"
    decode = "raw"
    shape = [32, 32, 3]

    [labels]
    path = "${EDGE_DEPLOY_DATA}/eval/mlperf_tiny_ic01/y_labels.csv"
    key = 0
    label = 2

    [preprocess]
    divide = 255.0

Relative paths count from the description's folder.
"""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_deploy.core.errors import BadInput
from edge_deploy.core.serde import from_json

__all__ = [
    "BUILT_IN",
    "Description",
    "Items",
    "Labels",
    "Preprocess",
    "Split",
    "built_in_names",
    "check_description",
    "find_description",
    "read_description",
    "resolve",
]

BUILT_IN = Path(__file__).with_name("descriptions")
"""Folder of the descriptions that come with the tool."""

Decode = Literal["image", "raw", "rows", "npy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """Where the items are.

    Attributes:
        path: Archives (.tar, .tar.gz, .tar.xz, .tar.bz2, .zip), folders or files; `${NAME}` is an environment variable.
        pattern: Takes only items whose name fits, e.g. "*.bin".
        decode: "image" (anything pillow reads), "raw" (bytes of one array), "rows" (an image of which every row is the
            bytes of one array) or "npy".
        shape: Of one array, for "raw" and "rows".
        dtype: Of one array, for "raw" and "rows"; as NumPy writes it.
    """

    path: str | tuple[str, ...]
    pattern: str = "*"
    decode: Decode = "image"
    shape: tuple[int, ...] = ()
    dtype: str = "uint8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """Which label belongs to which item.

    Attributes:
        format: "csv", or "numbers": all numbers in a text, in the order of the items.
        header: The csv's first line holds names of columns.
        key: Column that holds the item's file name; without it lines follow the order of the items.
        label: Column that holds the label; a number, or a word that `classes` lists.
        classes: Words in the order of their indices.
        offset: Labels (of "numbers", or lines without `key`) to skip before the first item's.
    """

    path: str
    format: Literal["csv", "numbers"] = "csv"
    delimiter: str = ","
    header: bool = False
    key: str | int | None = None
    label: str | int = 1
    classes: tuple[str, ...] = ()
    offset: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Which part is taken of the items in the order of their bytes' sha256: the first `fraction` calibrates."""

    part: Literal["all", "calibrate", "evaluate"] = "all"
    fraction: float = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess:
    """From decoded values to what the model takes: ((value - zero) * scale / divide - mean) / std.

    Attributes:
        resize: Length of the shorter side, or (height, width); of images only.
        crop: Side of the square, or (height, width), cut from the middle.
        mode: Pillow's name for the channels wanted; without it what the model's input needs, "RGB" or "L".
        mean: One value, or one for each channel.
        flatten: The model takes all values as one row.
    """

    resize: int | tuple[int, int] | None = None
    filter: Literal["bilinear", "bicubic", "nearest", "lanczos", "box"] = "bilinear"
    crop: int | tuple[int, int] | None = None
    mode: Literal["RGB", "L"] | None = None
    zero: float = 0.0
    scale: float = 1.0
    divide: float = 1.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    flatten: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A whole description; `limit` takes that many items, first in the order of their bytes' sha256."""

    items: Items
    labels: Labels | None = None
    split: Split = Split()
    preprocess: Preprocess = Preprocess()
    limit: int | None = None


def built_in_names() -> tuple[str, ...]:
    """Names of the descriptions that come with the tool."""
    return tuple(sorted(path.stem for path in BUILT_IN.glob("*.toml")))


def find_description(name: str | Path) -> Path:
    """The built-in description of this name, e.g. "ic01"; anything else is a path already."""
    path = Path(name)
    is_name = path.name == str(name) and path.name in built_in_names() and not path.exists()
    return BUILT_IN / f"{path.name}.toml" if is_name else path


def read_description(path: Path) -> Description:
    """The description at `path`.

    Raises:
        BadInput: Not TOML, unknown keys (close names are suggested), values of a wrong type or out of range.
    """
    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}).") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: is not TOML ({error}).") from error
    description = from_json(Description, content, where=path.name)
    check_description(description, path.name)
    return description


def check_description(description: Description, where: str) -> None:
    """Refuse values that do not go together.

    Raises:
        BadInput: All of them, each beginning with `where`.
    """
    problems = list(_problems(description))
    if problems:
        raise BadInput(*(f"{where}: {problem}" for problem in problems))


def _problems(description: Description) -> list[str]:
    items, split, process = description.items, description.split, description.preprocess
    found = []
    if items.decode in ("raw", "rows"):
        if not items.shape or any(size < 1 for size in items.shape):
            found.append(f"items.shape = {list(items.shape)}: {items.decode} items need their shape, e.g. [32, 32, 3].")
        if items.dtype not in ("uint8", "int8", "uint16", "int16", "int32", "int64", "float32", "float64"):
            found.append(f"items.dtype = {items.dtype!r}: must be a NumPy type such as uint8, int8 or float32.")
    elif items.shape:
        found.append(f"items.shape: {items.decode} items bring their own shape; leave it out.")
    if not 0 < split.fraction < 1:
        found.append(f"split.fraction = {split.fraction}: must lie between 0 and 1.")
    if process.divide == 0 or process.scale == 0 or 0 in process.std:
        found.append("preprocess: scale, divide and std must not be 0.")
    if process.resize is not None and items.decode != "image":
        found.append(f"preprocess.resize: only images are resized, these items are {items.decode}.")
    for name, value in (("resize", process.resize), ("crop", process.crop)):
        if value is not None and any(side < 1 for side in (value if isinstance(value, tuple) else (value,))):
            found.append(f"preprocess.{name} = {value}: must be at least 1.")
    if description.limit is not None and description.limit < 1:
        found.append(f"limit = {description.limit}: must be at least 1.")
    labels = description.labels
    if labels is not None and len(labels.delimiter) != 1:
        found.append(f"labels.delimiter = {labels.delimiter!r}: must be one character.")
    if labels is not None and not labels.header and (isinstance(labels.key, str) or isinstance(labels.label, str)):
        found.append("labels: columns without a header are named by number, from 0.")
    return found


def resolve(text: str, folder: Path) -> Path:
    """A path of a description: environment variables put in, relative to the description's folder.

    Raises:
        BadInput: A variable is not set, or nothing is there.
    """

    def variable(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in os.environ:
            raise BadInput(f"{text}: the environment variable {name} is not set.")
        return os.environ[name]

    path = folder / re.sub(r"\$\{(\w+)\}", variable, text)
    if not path.exists():
        raise BadInput(f"{path}: no such file or folder.")
    return path
