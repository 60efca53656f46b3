"""NAME=VALUE options."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["numbers", "words"]


def words(pairs: Sequence[str], where: str) -> dict[str, str]:
    """By name what stands after the first equals sign.

    Raises:
        BadInput: There is none, or nothing before or after it.
    """
    from edge_deploy.core.errors import BadInput

    found = {}
    for pair in pairs:
        name, _, value = (part.strip() for part in pair.partition("="))
        if not name or not value:
            raise BadInput(f"{where} {pair!r}: must be NAME=VALUE.")
        found[name] = value
    return found


def numbers(pairs: Sequence[str], where: str) -> dict[str, float]:
    """By name the number after the last equals sign; layers may have one in their names.

    Raises:
        BadInput: Not a number, or no name before it.
    """
    from edge_deploy.core.errors import BadInput

    found = {}
    for pair in pairs:
        name, _, number = pair.rpartition("=")
        try:
            found[name] = float(number)
        except ValueError:
            name = ""
        if not name:
            raise BadInput(
                f"{where} {pair!r}: must be NAME=NUMBER, e.g. {'l3' if 'exit' in where else '012-3fa9c1'}=0.01."
            )
    return found
