"""One JSON encoder and decoder for every value that travels: dataclasses, checked against their own annotations."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import os
import types
import typing
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from edge_deploy.core.errors import BadInput
from edge_deploy.core.schema_version import check_schema_version, version_text

__all__ = ["dumps", "from_json", "loads", "read_json", "to_json", "write_json"]

T = TypeVar("T")
_leaves_unknown_keys: ContextVar[bool] = ContextVar("leaves_unknown_keys", default=False)


def to_json(value: Any) -> Any:
    """`value` as plain JSON values: dataclasses become objects, tuples arrays, paths strings, NumPy scalars numbers."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, np.ndarray):
        return to_json(value.tolist())
    if isinstance(value, np.generic):
        return to_json(value.item())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}  # JSON has no NaN and no infinity
    return value


def from_json(kind: type[T], data: Any, *, where: str = "value") -> T:
    """The value of type `kind` that `to_json` described.

    Raises:
        BadInput: A key is unknown or missing, or a value has another type; names the place in `where`.
    """
    return typing.cast(T, _decode(kind, data, where))


def _decode(kind: Any, data: Any, where: str) -> Any:
    if isinstance(data, dict) and set(data) == {"float"}:
        data = float(data["float"])
    if kind is Any or kind is object:
        return data
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _decode_union(kind, data, where)
    if origin is Literal:
        if data not in get_args(kind):
            raise BadInput(f"{where}: {data!r}: must be one of {', '.join(map(repr, get_args(kind)))}.")
        return data
    if origin is tuple:
        return _decode_tuple(get_args(kind), data, where)
    if origin is dict:
        if not isinstance(data, dict):
            raise BadInput(f"{where}: {data!r}: must be an object.")
        return {key: _decode(get_args(kind)[1], item, f"{where}.{key}") for key, item in data.items()}
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, data, where)
    if kind is Path:
        return Path(data)
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if isinstance(kind, type) and (not isinstance(data, kind) or (kind is int and isinstance(data, bool))):
        raise BadInput(f"{where}: {data!r}: must be of type {kind.__name__}.")
    return data


def _decode_union(kind: Any, data: Any, where: str) -> Any:
    options = get_args(kind)
    if data is None and type(None) in options:
        return None
    problems: list[str] = []
    for option in options:
        if option is type(None):
            continue
        try:
            return _decode(option, data, where)
        except BadInput as error:
            problems += error.problems
    raise BadInput(*problems)


def _decode_tuple(items: tuple[Any, ...], data: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(data, list):
        raise BadInput(f"{where}: {data!r}: must be an array.")
    if len(items) == 2 and items[1] is Ellipsis:
        return tuple(_decode(items[0], item, f"{where}[{index}]") for index, item in enumerate(data))
    if len(items) != len(data):
        raise BadInput(f"{where}: {len(data)} items: must be {len(items)}.")
    return tuple(_decode(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(items, data, strict=True)))


def _decode_dataclass(kind: Any, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise BadInput(f"{where}: {data!r}: must be an object with the fields of {kind.__name__}.")
    hints = get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    problems, values = [], {}
    for key in data:
        if key not in fields and not _leaves_unknown_keys.get():
            close = difflib.get_close_matches(key, fields, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(fields)}."
            problems.append(f"{where}.{key}: unknown key; {hint}")
    for name, field in fields.items():
        if name in data:
            try:
                values[name] = _decode(hints[name], data[name], f"{where}.{name}")
            except BadInput as error:
                problems += error.problems
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            problems.append(f"{where}.{name}: missing.")
    if problems:
        raise BadInput(*problems)
    return kind(**values)


def dumps(value: Any) -> str:
    """The value as indented JSON text with its schema version."""
    return json.dumps({"schema_version": version_text(), **to_json(value)}, indent=1, allow_nan=False) + "\n"


def loads(kind: type[T], text: str, *, where: str) -> T:
    """The value that `dumps` wrote, or that of another version with the same major number.

    Raises:
        BadInput: Not JSON, a schema version that cannot be read (see `core.schema_version`), or not a `kind`.
    """
    try:
        data = json.loads(text)
    except ValueError as error:
        raise BadInput(f"{where}: not JSON ({error}).") from error
    if not isinstance(data, dict):
        raise BadInput(f"{where}: must be a JSON object.")
    is_newer = check_schema_version(data.pop("schema_version", None), where=where)
    token = _leaves_unknown_keys.set(is_newer)
    try:
        return from_json(kind, data, where=where)
    finally:
        _leaves_unknown_keys.reset(token)


def read_json(kind: type[T], path: Path) -> T:
    """Read a file that `write_json` wrote.

    Raises:
        BadInput: The file is missing, unreadable or not a `kind`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read ({error}).") from error
    return loads(kind, text, where=str(path))


def write_json(value: Any, path: Path) -> None:
    """Write the value to `path`; the file appears in one rename."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(dumps(value), encoding="utf-8")
    partial.replace(path)
