"""The layers of a recommender as the artifact reports them: what each table and linear became, and their bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from converters.executorch.recommender_module import Group
from converters.executorch.recommender_tables import StackedTables
from converters.executorch.widths import word
from converters.recommender.hot_rows import hot_bytes
from converters.recommender.model import Dense, Recommender
from edge_deploy.core.artifact import LayerFacts, LayerOutcome
from edge_deploy.core.errors import Refusal, Unsupported, VerificationFailed

__all__ = ["Asked", "dense_outcomes", "table_outcomes", "weight_bytes"]

TOLERANCE_BITS = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Widths by layer name: what was asked, what it will be, and why they differ where they do."""

    asked: Mapping[str, int]
    bits: Mapping[str, int]
    reasons: Mapping[str, str]


def table_outcomes(
    model: Recommender,
    groups: Sequence[Group],
    stacked: Sequence[StackedTables],
    names: Sequence[str],
    facts: Sequence[LayerFacts],
    wanted: Asked,
) -> tuple[LayerOutcome, ...]:
    """An outcome for every table, from the written file.

    Args:
        names: Of each group's look-up in the file.

    Raises:
        VerificationFailed: A look-up is not in the file, or its rows have another width than they should.
    """
    by_name = {fact.layer: fact for fact in facts if fact.weight_count}
    found: dict[int, LayerOutcome] = {}
    for group, tables, name in zip(groups, stacked, names, strict=True):
        fact = by_name.get(name)
        is_padded = tables.dim % 2 if tables.bits == 4 else 0
        # A row of odd width is padded at 4 bits; the kernels of one scale a table see bytes, each of two weights.
        weights = tables.stored.size if tables.bits == 8 else len(tables.stored) * (tables.dim + is_padded)
        bits = 0.0 if fact is None else 8 * fact.weight_bytes / weights
        if fact is None or abs(bits - tables.bits) > TOLERANCE_BITS:
            got = "no such look-up" if fact is None else f"{bits:g} bits a weight"
            raise VerificationFailed(f"look-up {name}: the file has {got}: must be {tables.bits} bits.")
        # Tables over one array have the share of its bytes that they have of all rows.
        rows = len(tables.stored) if group.robe is None else sum(model.tables[index].rows for index in group.tables)
        for index in group.tables:
            table = model.tables[index]
            notes = [wanted.reasons.get(table.name, "")]
            hot = table.hot if group.hot_bits else None
            cold = table.rows - (hot.count if hot is not None else 0)
            if hot is not None:
                notes.append(f"{hot.count} hot rows stay float{hot.bits}")
            elif table.hot is not None and table.hot.count == table.rows and wanted.bits[table.name] < 32:
                notes.append("all of its rows are hot")
            if group.robe is None and len(group.tables) > 1:
                notes.append(f"stored below its neighbours in {name}, looked up together")
            if group.robe is None and tables.bits == 4 and table.dim % 2:
                notes.append("rows padded to an even width")
            if group.robe is None and tables.stored.shape[1] > table.dim:
                notes.append("rows of one value padded to two, which the kernel needs")
            found[index] = LayerOutcome(
                layer=table.name,
                op="embedding",
                asked=word(wanted.asked[table.name]),
                got=_scaled(tables) if group.robe is None else _shared(tables, group),
                reason="; ".join(note for note in notes if note),
                weight_bits=bits,
                weight_bytes=fact.weight_bytes * cold // rows,
                runs_on="portable" if tables.bits == 32 or tables.granularity == "table" else "quantized kernels",
                beside_bytes=(cold * tables.scales.itemsize if tables.granularity == "row" else 0)
                + (0 if hot is None else hot_bytes(table)),
            )
    return tuple(found[index] for index in sorted(found))


def _shared(tables: StackedTables, group: Group) -> str:
    assert group.robe is not None, "the caller asks for shared arrays only"
    made, scale = group.robe, "" if tables.bits == 32 else ", one scale"
    shared = f"one array of {made.size} values for {len(group.tables)} tables, blocks of {made.block}"
    return f"{word(tables.bits)}, {shared}{scale}"


def _scaled(tables: StackedTables) -> str:
    if tables.bits == 32:
        return "float32"
    if tables.granularity == "table":
        return f"int{tables.bits}, one scale a table"
    return f"int{tables.bits}, one {tables.scales.dtype} scale a row"


def dense_outcomes(
    layers: Sequence[Dense], facts: Sequence[LayerFacts], wanted: Asked, *, float_allowed: bool
) -> tuple[LayerOutcome, ...]:
    """An outcome for every linear, from the written file.

    Raises:
        Unsupported: A linear that was to be quantized stands in the file as float, or is not to be found.
    """
    by_name = {fact.layer: fact for fact in facts if fact.weight_count}
    outcomes, refusals = [], []
    for layer in layers:
        fact, bits = by_name.get(layer.name), wanted.bits[layer.name]
        got = fact.weight_dtype or "float32" if fact is not None else "not found"
        reason = wanted.reasons.get(layer.name, "")
        if bits != 32 and got != word(bits):
            if got != "float32" or not float_allowed:
                refusals.append(
                    Refusal(
                        layer=layer.name,
                        op="linear",
                        reason=f"asked {word(bits)}, the written file has {got}",
                        remedy="give the layer a rule, or allow it: --fallback float32",
                    )
                )
            reason = reason or "the toolchain left it in float"
        elif bits == 4 and layer.in_features % 2:
            reason = reason or "one input of zero added: XNNPACK's 4-bit linear needs an even number"
        outcomes.append(
            LayerOutcome(
                layer=layer.name,
                op="linear",
                asked=word(wanted.asked[layer.name]),
                got=f"{got}, dynamic int8 activations" if got in ("int8", "int4") else got,
                reason=reason,
                weight_bits=fact.weight_bits if fact is not None else 0.0,
                weight_bytes=fact.weight_bytes if fact is not None else 0,
                runs_on=fact.runs_on if fact is not None else "unknown",
            )
        )
    if refusals:
        raise Unsupported("ExecuTorch did not quantize what was asked.", refusals=tuple(refusals))
    return tuple(outcomes)


def weight_bytes(
    groups: Sequence[Group], names: Sequence[str], outcomes: Sequence[LayerOutcome], model: Recommender
) -> dict[str, int]:
    """Bytes in the file, by name of look-up or linear; tables that are looked up together count together."""
    sizes = {outcome.layer: outcome.weight_bytes for outcome in outcomes}
    grouped = {
        name: sum(sizes.pop(model.tables[index].name) for index in group.tables)
        for group, name in zip(groups, names, strict=True)
    }
    return {**sizes, **grouped}
