"""The support table: what a target makes of an operator under each recipe; one `support.toml` in a target's folder."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

from edge_deploy.core.errors import BadInput
from edge_deploy.core.precision import PRECISIONS

__all__ = ["RECIPE_KINDS", "Status", "Support", "entries", "lookup", "targets"]

Status: TypeAlias = Literal["native", "stored only", "refused"]
STATUSES = ("native", "stored only", "refused")
# The precisions; besides "int4-dynamic": the form of `int4` in a recommender for phones, whose activations stay float
# (that of `int8` is "int8-dynamic"), and "int4-plain": `int4` with --plain-pte.
RECIPE_KINDS = (*PRECISIONS, "int4-plain", "int4-dynamic")
FILE = "support.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """One cell of the table.

    Attributes:
        operator: As the target's format names it; "*" stands for all that are not listed.
        status: "native": the runtime computes with what is stored. "stored only": narrow in the file, widened before
            it computes. "refused": the layer is refused by name unless a fallback is permitted.
        reason: Why it is not native, or what to know although it is.
    """

    target: str
    recipe: str
    operator: str
    status: Status
    reason: str = ""


def targets() -> tuple[str, ...]:
    """Targets that have a table."""
    return tuple(sorted(path.parent.name for path in Path(__file__).parent.glob(f"*/{FILE}")))


@cache
def entries(target: str) -> tuple[Support, ...]:
    """All cells of a target's table, in the order of its file.

    Raises:
        BadInput: No such table, or an entry of it is wrong; all problems at once.
    """
    path = Path(__file__).parent / target / FILE
    if target not in targets():
        raise BadInput(f"target {target}: has no support table; known: {', '.join(targets())}.")
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise BadInput(f"{path}: cannot be read ({error}).") from error
    found: dict[tuple[str, str], Support] = {}
    problems = []
    for number, entry in enumerate(data.get("entry", ())):
        where = f"{path.name} of {target}: entry {number}"
        unknown = set(entry) - {"recipes", "operators", "status", "reason"}
        if unknown:
            problems.append(f"{where}: unknown keys {', '.join(sorted(unknown))}.")
        if entry.get("status") not in STATUSES:
            problems.append(f"{where}: status = {entry.get('status')!r}: must be one of {', '.join(STATUSES)}.")
            continue
        if entry["status"] != "native" and not entry.get("reason"):
            problems.append(f"{where}: {entry['status']} needs a reason.")
        for recipe in entry.get("recipes", ()):
            if recipe not in RECIPE_KINDS:
                problems.append(f"{where}: recipe {recipe!r}: must be one of {', '.join(RECIPE_KINDS)}.")
            for operator in entry.get("operators", ()):
                if (recipe, operator) in found:
                    problems.append(f"{where}: {recipe} {operator} is listed twice.")
                found[recipe, operator] = Support(
                    target=target,
                    recipe=recipe,
                    operator=operator,
                    status=entry["status"],
                    reason=entry.get("reason", ""),
                )
    if problems:
        raise BadInput(*problems)
    return tuple(found.values())


@cache
def lookup(target: str, recipe: str, operator: str) -> Support:
    """The cell of an operator, or that of "*" where it is not listed; "int4-plain" lists what differs from "int4".

    Raises:
        BadInput: The table has neither.
    """
    by_name = {entry.operator: entry for entry in entries(target) if entry.recipe == recipe}
    entry = by_name.get(operator) or by_name.get("*")
    if entry is None and recipe == "int4-plain":
        return replace(lookup(target, "int4", operator), recipe=recipe)
    if entry is None:
        raise BadInput(f"{target}: the support table has no entry for {recipe} {operator} and none for all others.")
    return entry
