"""A DLRM from named arrays alone: tables, two MLPs, and their interaction, read from names, shapes and a few words.

A table is an array of two dimensions without a bias; layers are those with one. Both are taken in the order of the
numbers in their names. What cannot be told from shapes, or is named otherwise, stands in a description:

    [dlrm]
    weights = "model.safetensors"    # or a folder of .npy, or what torch.save wrote; beside the description
    tables = "emb_l.*.weight"        # or a list of names, one for each id column
    bottom = "bot_l.*"               # layers: NAME.weight [out, in] and NAME.bias; a list, or a pattern
    top = "top_l.*"
    interaction = "dot"              # or "concat"
    self_interaction = false         # dot products of vectors with themselves too
    output = "probability"           # or "logit"
    pooling = "sum"                  # or "mean", where a look-up takes several ids
    ids = 1                          # ids of each look-up, or a list with one number for each table
    dense_input = "dense"            # names of the inputs
    ids_input = "sparse"
"""

from __future__ import annotations

import fnmatch
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from converters.recommender.model import Dense, Interaction, Lookup, Recommender, Table
from converters.recommender.rows import StoredArray
from edge_deploy.core.errors import BadInput
from edge_deploy.core.serde import from_json
from edge_deploy.core.tensor import TensorInfo

__all__ = ["Description", "dlrm_of", "is_description", "read_description"]

FLOATS = ("float32", "float16", "bfloat16", "float64")
SHOWN = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What names and shapes do not tell; empty fields are read from them."""

    weights: str = ""
    tables: str | tuple[str, ...] = ()
    bottom: str | tuple[str, ...] = ()
    top: str | tuple[str, ...] = ()
    interaction: Literal["", "dot", "concat"] = ""
    self_interaction: bool = False
    output: Literal["probability", "logit"] = "probability"
    pooling: Literal["sum", "mean"] = "sum"
    ids: int | tuple[int, ...] = 1
    dense_input: str = "dense"
    ids_input: str = "sparse"


def is_description(path: Path) -> bool:
    """Whether a `.toml` file describes a DLRM."""
    try:
        return path.suffix == ".toml" and "dlrm" in tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return False


def read_description(path: Path) -> Description:
    """The description in a `.toml` file.

    Raises:
        BadInput: Not TOML, or with unknown keys or values.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput(f"{path}: cannot be read ({error}).") from error
    others = [key for key in data if key != "dlrm"]
    if others:
        raise BadInput(f"{path}: {', '.join(others)}: unknown; everything stands under [dlrm].")
    return from_json(Description, data["dlrm"], where=f"{path}: dlrm")


def dlrm_of(
    arrays: Mapping[str, StoredArray], wish: Description, *, where: str
) -> tuple[Recommender, dict[str, StoredArray]]:
    """The structure, and where its arrays stand by the names that it uses.

    Args:
        where: Named in messages.

    Raises:
        BadInput: The arrays are none of a DLRM, or do not fit each other; says which and why.
    """
    floats = {name: array for name, array in arrays.items() if array.dtype in FLOATS}
    tables = _tables(floats, wish, where)
    bottom, top = _mlps(floats, wish, tables, where)
    width = tables[0].dim
    lengths = wish.ids if isinstance(wish.ids, tuple) else (wish.ids,) * len(tables)
    if len(lengths) != len(tables) or min(lengths) < 1:
        raise BadInput(f"{where}: ids = {wish.ids}: must be one number of at least 1 for each of {len(tables)} tables.")
    lookups = _lookups(tables, lengths, wish)
    interaction = _interaction(tables, bottom, top, wish, where)
    ids = TensorInfo(
        name=wish.ids_input,
        shape=(-1, sum(lengths)),
        dtype="int64",
        id_bounds=tuple(table.rows for table, length in zip(tables, lengths, strict=True) for _ in range(length)),
    )
    inputs: tuple[TensorInfo, ...] = (ids,)
    if bottom:
        inputs = (TensorInfo(name=wish.dense_input, shape=(-1, bottom[0].in_features), dtype="float32"), ids)
    model = Recommender(
        inputs=inputs,
        output=TensorInfo(name="output", shape=(-1, top[-1].out_features), dtype="float32", meaning=wish.output),
        tables=tables,
        lookups=lookups,
        interaction=interaction,
        top=top,
        bottom=bottom,
        dense_input=wish.dense_input if bottom else None,
        output_activation="sigmoid" if wish.output == "probability" else "none",
    )
    used = {table.weight for table in tables}
    used |= {name for layer in (*bottom, *top) for name in (layer.weight, layer.bias) if name is not None}
    unused = [name for name in floats if name not in used]
    if unused:
        raise BadInput(
            f"{where}: {_listed(unused)}: not part of the DLRM (width {width}); describe which are in a .toml."
        )
    return model, {name: floats[name] for name in used}


def _tables(floats: Mapping[str, StoredArray], wish: Description, where: str) -> tuple[Table, ...]:
    if wish.tables:
        names = _named(floats, wish.tables, where, "tables")
    else:
        told = {*_stems(floats, wish.bottom), *_stems(floats, wish.top)}
        names = [
            name
            for name, array in floats.items()
            if len(array.shape) == 2 and _stem(name) not in told and _bias_of(name, floats) is None
        ]
        names.sort(key=_natural)
    if not names:
        raise BadInput(
            f"{where}: no table: no array of two dimensions without a bias; it holds {_listed(list(floats))}."
        )
    wrong = [name for name in names if len(floats[name].shape) != 2 or 0 in floats[name].shape]
    if wrong:
        raise BadInput(f"{where}: table {wrong[0]}: shape {floats[wrong[0]].shape}: must be [rows, width].")
    return tuple(Table(name=_stem(n), rows=floats[n].shape[0], dim=floats[n].shape[1], weight=n) for n in names)


def _mlps(
    floats: Mapping[str, StoredArray], wish: Description, tables: Sequence[Table], where: str
) -> tuple[tuple[Dense, ...], tuple[Dense, ...]]:
    stems = [_stem(name) for name in floats if _bias_of(name, floats) is not None and len(floats[name].shape) == 2]
    groups: dict[str, list[str]] = {}
    for stem in sorted(stems, key=_natural):
        groups.setdefault(re.sub(r"\d+$", "", stem), []).append(stem)
    top = _stems(floats, wish.top)
    bottom = _stems(floats, wish.bottom)
    rest = {prefix: found for prefix, found in groups.items() if not set(found) & {*top, *bottom}}
    if not top:
        fitting = [found for found in rest.values() if _weight(floats, found[-1]).shape[0] == 1]
        if len(fitting) != 1:
            raise BadInput(
                f"{where}: {len(fitting)} MLPs end in one output: must be one; describe top = ... in a .toml."
            )
        top = fitting[0]
        rest = {prefix: found for prefix, found in rest.items() if found is not top}
    if not bottom and rest:
        if len(rest) > 1:
            raise BadInput(
                f"{where}: MLPs {_listed(list(rest))} beside the top one: must be one; describe bottom = ...."
            )
        bottom = next(iter(rest.values()))
    return _layers(floats, bottom, where, last_relu=True), _layers(floats, top, where, last_relu=False)


def _layers(
    floats: Mapping[str, StoredArray], stems: Sequence[str], where: str, *, last_relu: bool
) -> tuple[Dense, ...]:
    layers: list[Dense] = []
    for place, stem in enumerate(stems):
        weight = _weight(floats, stem)
        name = next(each for each in (f"{stem}.weight", stem) if each in floats)
        if len(weight.shape) != 2 or (layers and weight.shape[1] != layers[-1].out_features):
            before = f"; {layers[-1].name} gives {layers[-1].out_features}" if layers else ""
            raise BadInput(f"{where}: layer {stem}: weight of shape {weight.shape}: must be [out, in]{before}.")
        bias = _bias_of(name, floats)
        if bias is not None and floats[bias].shape != (weight.shape[0],):
            raise BadInput(f"{where}: layer {stem}: bias of shape {floats[bias].shape}: must be {(weight.shape[0],)}.")
        is_last = place == len(stems) - 1
        layers.append(
            Dense(
                name=stem,
                weight=name,
                in_features=weight.shape[1],
                out_features=weight.shape[0],
                bias=bias,
                activation="relu" if last_relu or not is_last else "none",
            )
        )
    return tuple(layers)


def _lookups(tables: Sequence[Table], lengths: Sequence[int], wish: Description) -> tuple[Lookup, ...]:
    starts = [sum(lengths[:number]) for number in range(len(tables))]
    return tuple(
        Lookup(
            table=number,
            input=wish.ids_input,
            column=starts[number],
            length=lengths[number],
            pooling="none" if lengths[number] == 1 else wish.pooling,
        )
        for number in range(len(tables))
    )


def _interaction(
    tables: Sequence[Table], bottom: Sequence[Dense], top: Sequence[Dense], wish: Description, where: str
) -> Interaction:
    """Dot products in the order of the lower triangle, row by row, behind the bottom MLP's output."""
    base = bottom[-1].out_features if bottom else 0
    vectors = (*((-1,) if bottom else ()), *range(len(tables)))
    shift = 1 if wish.self_interaction else 0
    pairs = tuple((a, b) for a in range(len(vectors)) for b in range(a + shift))
    widths = {table.dim for table in tables} | ({base} if bottom else set())
    wanted = {"dot": base + len(pairs), "concat": base + sum(table.dim for table in tables)}
    have = top[0].in_features
    kinds = [kind for kind, width in wanted.items() if width == have and wish.interaction in ("", kind)]
    if "dot" in kinds and len(widths) > 1:
        kinds.remove("dot")
    if not kinds:
        raise BadInput(
            f"{where}: layer {top[0].name} takes {have} values: must be {wanted['dot']} (dot products of "
            f"{len(vectors)} vectors of one width) or {wanted['concat']} (concatenation)."
        )
    kind = kinds[0]
    first = ("bottom",) if bottom else ()
    if kind == "dot":
        return Interaction(kind="dot", top_inputs=(*first, "pairs"), vectors=vectors, pairs=pairs)
    return Interaction(kind="concat", top_inputs=(*first, *(f"lookup:{number}" for number in range(len(tables)))))


def _named(floats: Mapping[str, StoredArray], wish: str | tuple[str, ...], where: str, what: str) -> list[str]:
    if isinstance(wish, str):
        found = sorted(fnmatch.filter(floats, wish), key=_natural)
        if not found:
            raise BadInput(f"{where}: {what} = {wish!r}: fits none of {_listed(list(floats))}.")
        return found
    missing = [name for name in wish if name not in floats]
    if missing:
        raise BadInput(f"{where}: {what}: {_listed(missing)}: not there; it holds {_listed(list(floats))}.")
    return list(wish)


def _stems(floats: Mapping[str, StoredArray], wish: str | tuple[str, ...]) -> list[str]:
    """Names of layers, without ".weight"."""
    if not wish:
        return []
    if isinstance(wish, str):
        stems = dict.fromkeys(_stem(name) for name in floats if len(floats[name].shape) == 2)
        return sorted(fnmatch.filter(stems, wish), key=_natural)
    return [_stem(name) for name in wish]


def _stem(name: str) -> str:
    return name.removesuffix(".weight")


def _weight(floats: Mapping[str, StoredArray], stem: str) -> StoredArray:
    for name in (f"{stem}.weight", stem):
        if name in floats:
            return floats[name]
    raise BadInput(f"layer {stem}: has no weight; the file holds {_listed(list(floats))}.")


def _bias_of(name: str, floats: Mapping[str, StoredArray]) -> str | None:
    bias = f"{_stem(name)}.bias"
    return bias if bias in floats and len(floats[bias].shape) == 1 and len(floats[name].shape) == 2 else None


def _natural(name: str) -> list[tuple[int, int | str]]:
    """table.10 behind table.9."""
    parts = re.split(r"(\d+)", name)
    return [(1, int(part)) if part.isdigit() else (0, part) for part in parts]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (", ".join(names[:SHOWN]) or "nothing") + more
