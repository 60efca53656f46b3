"""A plain folder of images as a data set: classes by sub-folder or by a label file, preprocessing beside it.

photos/
  preprocess.toml     divide = 255.0, and what else stands under [preprocess] of a description
  labels.csv          optional: file name, label (a number); without it every sub-folder is a class
  cat/0001.jpg ...
"""

from __future__ import annotations

import tomllib
from pathlib import Path, PurePosixPath

from edge_deploy.core.errors import BadInput
from edge_deploy.core.serde import from_json
from edge_deploy.core.tensor import TensorInfo
from edge_deploy.zoo.description import Description, Items, Labels, Preprocess, check_description
from edge_deploy.zoo.item_labels import find_labels
from edge_deploy.zoo.items import Item, find_items

__all__ = ["LABELS", "PREPROCESS", "read_image_folder"]

PREPROCESS = "preprocess.toml"
LABELS = "labels.csv"
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


def read_image_folder(path: Path, wanted: TensorInfo) -> tuple[Description, list[Item], list[float] | None]:
    """How the images of a folder are decoded, the images by name, and their labels (None where there are none).

    Sub-folders are classes in the order of their names, or by their number where all are numbers. Images are brought to
    the size of the model's input where `preprocess.toml` says nothing else: shorter side resized, middle cut out.

    Args:
        wanted: The model's input.

    Raises:
        BadInput: No image, no `preprocess.toml` for a float input, labels that do not fit the images.
    """
    description = Description(items=Items(path=str(path)), preprocess=_preprocess(path, wanted))
    check_description(description, f"{path.name}/{PREPROCESS}")
    named = [item for item in _items(path) if PurePosixPath(item.name).suffix.lower() in SUFFIXES]
    if not named:
        raise BadInput(f"{path}: holds no image; data sets are folders of images, .npz, .npy, or .toml descriptions.")
    return description, named, _labels(path, [item.name for item in named])


def _items(path: Path) -> list[Item]:
    return find_items(Items(path=path.name), path.absolute().parent)


def _preprocess(path: Path, wanted: TensorInfo) -> Preprocess:
    file = path / PREPROCESS
    size = _size(wanted)
    if not file.is_file():
        if wanted.dtype.startswith("float"):
            raise BadInput(
                f"{path}: has no {PREPROCESS}, and the model's input {wanted.name} takes real numbers: which ones a "
                "pixel becomes must be said. Write one, e.g. the line `divide = 255.0` for pixels of 0-1, or also "
                "`mean = [0.5]` and `std = [0.5]` for -1..1; `scale = 1.0` alone keeps 0-255."
            )
        return Preprocess(resize=_shorter(size), crop=size)
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput(f"{file}: is not TOML ({error}).") from error
    content = content.get("preprocess", content)
    if "resize" not in content and "crop" not in content and size is not None:
        content = {**content, "resize": _shorter(size), "crop": list(size)}
    return from_json(Preprocess, content, where=f"{path.name}/{PREPROCESS}")


def _size(wanted: TensorInfo) -> tuple[int, int] | None:
    """Height and width that the model takes; None where they are open."""
    shape = wanted.shape[1:]
    if len(shape) != 3:
        return None
    first = wanted.layout == "NCHW" or (wanted.layout is None and shape[0] in (1, 3) and shape[2] not in (1, 3))
    height, width = shape[1:] if first else shape[:2]
    return (height, width) if height > 0 and width > 0 else None


def _shorter(size: tuple[int, int] | None) -> int | None:
    """The shorter side after resizing: as long as the longer side wanted, so that the middle can be cut out."""
    return None if size is None else max(size)


def _labels(path: Path, names: list[str]) -> list[float] | None:
    if (path / LABELS).is_file():
        return find_labels(Labels(path=LABELS, key=0, label=1), path, names)
    classes = [PurePosixPath(name).parts[0] if "/" in name else "" for name in names]
    if not any(classes):
        return None
    outside = classes.count("")
    if outside:
        raise BadInput(
            f"{path}: {outside} images lie beside the sub-folders that name classes; move them into one, or write "
            f"{LABELS} with lines of file name and label."
        )
    known = sorted(set(classes))
    if all(name.isdecimal() for name in known):
        return [float(name) for name in classes]
    return [float(known.index(name)) for name in classes]
