"""What every table and layer of a recommender was asked to become and what it became in the written file."""

from __future__ import annotations

from collections.abc import Mapping

from converters.recommender.hot_rows import hot_bytes
from converters.recommender.model import Recommender
from converters.tflite.recommender_tables import Fused, Storage
from edge_deploy.core.artifact import LayerFacts, LayerOutcome
from edge_deploy.core.precision import width_word
from edge_deploy.core.quant_spec import QuantSpec

__all__ = ["mcu_outcomes", "outcomes_of"]

GOT: dict[Storage, str] = {
    "float32": "float32",
    "float16": "float16, widened behind the look-up",
    "int8-row": "int8, one float32 scale per row",
    "int4-row": "int4, one float16 scale per row",
    "int8-table": "int8, one scale per table",
    "int4-table": "int4, one scale per table",
}
SCALE_BYTES: dict[Storage, int] = {"int8-row": 4, "int4-row": 2}  # for each row


def outcomes_of(
    model: Recommender,
    spec: QuantSpec,
    plan: tuple[Fused, ...],
    widths: Mapping[str, tuple[int, str]],
    facts: tuple[LayerFacts, ...],
) -> tuple[LayerOutcome, ...]:
    """One outcome a table, under the table's name though several share a constant, and one a fully connected layer.

    Args:
        widths: Bits of each Dense and why they are not the ones asked.
        facts: Read back from the file.
    """
    fused_of = {number: fused for fused in plan for number in fused.tables}
    read = {fact.layer: fact for fact in facts}
    outcomes = []
    for number, table in enumerate(model.tables):
        fused = fused_of[number]
        fact = read.get(f"{fused.name}/looked_up")
        if fused.robe is not None:
            outcomes.append(_shared_outcome(model, spec, fused, number, fact))
            continue
        bits = fact.weight_bits * fused.stored_dim / fused.dim if fact is not None else 0.0
        asked = spec.bits_for(table.name)
        reasons = []
        if fused.stored_dim != fused.dim:
            reasons.append(f"rows of odd width {fused.dim} are stored with one more column")
        hot = table.hot if fused.hot_bits else None
        cold = table.rows - (hot.count if hot is not None else 0)
        if hot is not None:
            reasons.append(f"{hot.count} hot rows stay float{hot.bits}")
        if table.hot is not None and table.hot.count == table.rows and asked < 16:
            reasons.append("all of its rows are hot")
        elif not fused.storage.startswith(_word(asked)):
            reasons.append("its largest value is beyond float16" + (" row scales" if asked == 4 else ""))
        outcomes.append(
            LayerOutcome(
                layer=table.name,
                op="EMBEDDING_LOOKUP",
                asked=_word(asked) if asked >= 16 else f"{_word(asked)}, one scale per {spec.table_scale}",
                got=GOT[fused.storage],
                reason="; ".join(reasons),
                weight_bits=bits,
                weight_bytes=round(bits * cold * table.dim / 8),
                runs_on=fact.runs_on if fact is not None else "unknown",
                beside_bytes=cold * SCALE_BYTES.get(fused.storage, 0) + (0 if hot is None else hot_bytes(table)),
            )
        )
    for dense in (*model.bottom, *model.top):
        fact = read.get(dense.name)
        got, reason = widths[dense.name]
        asked = spec.bits_for(dense.name, default=spec.mlp_bits)
        outcomes.append(
            LayerOutcome(
                layer=dense.name,
                op="FULLY_CONNECTED",
                asked=_word(asked),
                got=_dense_got(got, fact),
                reason=reason,
                weight_bits=fact.weight_bits if fact is not None else 0.0,
                weight_bytes=fact.weight_bytes if fact is not None else 0,
                runs_on=fact.runs_on if fact is not None else "unknown",
            )
        )
    return tuple(outcomes)


def _shared_outcome(
    model: Recommender, spec: QuantSpec, fused: Fused, number: int, fact: LayerFacts | None
) -> LayerOutcome:
    """Of one of the tables that share an array; each has the share of its bytes that it has of all rows."""
    table, made = model.tables[number], fused.robe
    assert made is not None, "the caller asks for shared arrays only"
    asked = spec.bits_for(table.name)
    rows = sum(model.tables[each].rows for each in fused.tables)
    width = fused.storage.partition("-")[0]
    got = f"{width}, one array of {made.size} values for {len(fused.tables)} tables, blocks of {made.block}"
    return LayerOutcome(
        layer=table.name,
        op="EMBEDDING_LOOKUP",
        asked=_word(asked),
        got=got + (", one scale" if width.startswith("int") else ""),
        reason="" if width == _word(asked) else "its largest value is beyond float16",
        weight_bits=fact.weight_bits if fact is not None else 0.0,
        weight_bytes=round(fact.weight_bytes * table.rows / rows) if fact is not None else 0,
        runs_on=fact.runs_on if fact is not None else "unknown",
    )


def mcu_outcomes(
    model: Recommender, spec: QuantSpec, facts: tuple[LayerFacts, ...], *, packs_tables: bool = False
) -> tuple[LayerOutcome, ...]:
    """The same for a full-integer file, where every table is a constant of its own.

    Args:
        packs_tables: INT4 rows lie in it as INT8 values, and whoever reads it stores two in a byte.
    """
    read = {fact.layer: fact for fact in facts}
    first = {lookup.table: number for number, lookup in reversed(list(enumerate(model.lookups)))}
    entries = [
        (table.name, "GATHER", f"lookup:{first[number]}/rows", spec.bits_for(table.name), "one scale per table")
        for number, table in enumerate(model.tables)
    ]
    entries += [
        (dense.name, "FULLY_CONNECTED", dense.name, spec.bits_for(dense.name, default=spec.mlp_bits), "per-channel")
        for dense in (*model.bottom, *model.top)
    ]
    outcomes = []
    for name, op, layer, asked, scales in entries:
        fact = read.get(layer)
        is_narrow = packs_tables and asked == 4 and op == "GATHER"
        width = "float32" if spec.is_float else "int4" if is_narrow else "int8"
        outcomes.append(
            LayerOutcome(
                layer=name,
                op=op,
                asked=_word(asked),
                got=width if spec.is_float else f"{width}, {scales}, int8 activations",
                reason=f"TFLite Micro does not run INT4 {op}" if asked == 4 and not is_narrow else "",
                weight_bits=(4.0 if is_narrow else fact.weight_bits) if fact is not None else 0.0,
                weight_bytes=(fact.weight_bytes // 2 if is_narrow else fact.weight_bytes) if fact is not None else 0,
                runs_on=fact.runs_on if fact is not None else "unknown",
            )
        )
    return tuple(outcomes)


def _dense_got(bits: int, fact: LayerFacts | None) -> str:
    if bits == 32 or fact is None:
        return _word(bits)
    stored = _word(bits) if bits == 16 else f"{_word(bits)} per-channel"
    is_widened = fact.weight_compute == "float32"
    return f"{stored} stored, float32 compute" if is_widened else f"{stored}, dynamic int8 activations"


def _word(bits: int) -> str:
    return width_word(bits)
