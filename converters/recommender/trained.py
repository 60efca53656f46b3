"""Scales that training learned: they travel beside the weights, and targets store them as they are, bit for bit.

A checkpoint holds `NAME.weight_scale` and `NAME.weight_bits` beside `NAME.weight`, whose values lie on the grid already
(`converters.compress.dqrm.finish`). A captured recommender keeps them in `trained.npz` in its folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from converters.recommender.hot_rows import ColdRows, cold_of
from converters.recommender.model import Recommender
from edge_deploy.core.errors import BadInput, Refusal, Unsupported
from edge_deploy.core.quant_spec import QuantSpec

__all__ = ["TrainedScale", "check_on_grid", "load_trained", "save_trained", "usable", "with_trained_granularity"]

FILE = "trained.npz"
SCALE, BITS = ".weight_scale", ".weight_bits"
CHECK_ROWS = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedScale:
    """What one layer's weights are multiples of.

    Attributes:
        bits: 4 or 8: integers lie in [-8, 7] or [-127, 127].
        scales: float32 [1], or one for each row of a table or output channel.
    """

    bits: int
    scales: np.ndarray

    @property
    def by_row(self) -> bool:
        """One scale for each row; of a table with a single row there is no telling."""
        return len(self.scales) > 1


def save_trained(tensors: Mapping[str, np.ndarray], model: Recommender, folder: Path) -> None:
    """Keep the entries `NAME.weight_scale` and `NAME.weight_bits` for the layers of a captured recommender.

    Raises:
        BadInput: An entry belongs to no layer of the model, lacks its other half or has another size.
    """
    rows = {table.name: table.rows for table in model.tables}
    rows |= {dense.name: dense.out_features for dense in (*model.bottom, *model.top)}
    problems = []
    for name, value in tensors.items():
        layer, _, kind = name.rpartition(".")
        if layer not in rows:
            problems.append(f"trained scales: {name}: the model has no table or fully connected layer {layer}.")
        elif kind == SCALE[1:]:
            bits = int(tensors.get(layer + BITS, np.zeros(())))
            if bits not in (4, 8):
                problems.append(f"trained scales: {layer}{BITS}: {bits}: must be 4 or 8.")
            if value.shape not in ((1,), (rows[layer],)):
                problems.append(f"trained scales: {name}: shape {value.shape}: must be (1,) or ({rows[layer]},).")
            if not (np.isfinite(value).all() and (value > 0).all()):
                problems.append(f"trained scales: {name}: must be finite numbers above 0.")
        elif layer + SCALE not in tensors:
            problems.append(f"trained scales: {name}: {layer}{SCALE} is missing.")
    if problems:
        raise BadInput(*problems[:20])
    np.savez(folder / FILE, allow_pickle=False, **dict(tensors))


def load_trained(folder: Path) -> dict[str, TrainedScale]:
    """Trained scales by layer name; empty for a model that was not trained with any."""
    if not (folder / FILE).exists():
        return {}
    with np.load(folder / FILE, allow_pickle=False) as held:
        return {
            name.removesuffix(SCALE): TrainedScale(
                bits=int(held[name.removesuffix(SCALE) + BITS]), scales=held[name].astype(np.float32)
            )
            for name in held.files
            if name.endswith(SCALE)
        }


def usable(trained: Mapping[str, TrainedScale], layer: str, bits: int) -> np.ndarray | None:
    """The scales for a layer stored with so many bits; None where it must be quantized anew, or not at all.

    A layer trained for 4 bits keeps its scales, and its very values, when it is stored with 8.
    """
    found = trained.get(layer)
    return found.scales if found is not None and bits in (4, 8) and bits >= found.bits else None


def with_trained_granularity(
    spec: QuantSpec, model: Recommender, trained: Mapping[str, TrainedScale]
) -> tuple[QuantSpec, tuple[str, ...]]:
    """The spec with as many scales a table as training learned, and a sentence where something else was asked.

    Raises:
        Unsupported: Some tables were trained with a scale for each row and others with one for the table.
    """
    kinds = {}
    notes = []
    for table in model.tables:
        bits = spec.bits_for(table.name)
        if table.name in trained and bits == 4 and trained[table.name].bits == 8:
            notes.append(f"table {table.name}: trained for 8 bits, stored with 4: quantized anew")
        if table.rows > 1 and usable(trained, table.name, bits) is not None:
            kinds[table.name] = "row" if trained[table.name].by_row else "table"
    if len(set(kinds.values())) > 1:
        odd = next(name for name, kind in kinds.items() if kind == "row")
        reason = "was trained with a scale for each row, others with one for the whole table"
        raise Unsupported(refusals=(Refusal(layer=odd, op="embedding", reason=reason, remedy="train all alike"),))
    kind = next(iter(kinds.values()), spec.table_scale)
    if kind == spec.table_scale:
        return spec, tuple(notes)
    notes.append(
        f"tables were trained with one scale per {kind}, which is kept; --table-scale {spec.table_scale} is not"
    )
    return replace(spec, table_scale=kind), tuple(notes)  # type: ignore[arg-type]  # row or table


def check_on_grid(model: Recommender, arrays: Mapping[str, np.ndarray], trained: Mapping[str, TrainedScale]) -> None:
    """Prove that every trained weight is an integer times its scale, exactly.

    Raises:
        BadInput: Weights and scales do not belong together; names all such layers.
    """
    problems = []
    weights = {table.name: table.weight for table in model.tables}
    hot = {table.name: arrays[table.hot.ids] for table in model.tables if table.hot is not None}
    weights |= {dense.name: dense.weight for dense in (*model.bottom, *model.top)}
    for name, found in trained.items():
        array: Any = arrays[weights[name]]
        scales: Any = found.scales
        if name in hot:
            array, scales = ColdRows(array, hot[name]), cold_of(scales, hot[name])
        top = 7 if found.bits == 4 else 127
        bottom = -8 if found.bits == 4 else -127
        for start in range(0, len(array), CHECK_ROWS):
            part = np.asarray(array[start : start + CHECK_ROWS], np.float32)
            own = scales[start : start + CHECK_ROWS] if found.by_row else scales
            own = own.reshape(-1, 1)
            whole = np.clip(np.rint(part / own), bottom, top)
            if not np.array_equal(whole * own, part):
                problems.append(
                    f"layer {name}: its weights are no multiples of its trained scales; train or export again."
                )
                break
    if problems:
        raise BadInput(*problems)
