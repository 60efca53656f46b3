"""Which CPUs a worker is bound to, as an option says it."""

from __future__ import annotations

from typing import Literal

from edge_deploy.core.errors import BadInput

__all__ = ["parse_cpus"]

MOST_CPUS = 4096


def parse_cpus(text: str) -> tuple[int, ...] | Literal["auto", "none"]:
    """CPU numbers of "0,2-3"; "auto" and "none" stay what they are.

    Raises:
        BadInput: Neither.
    """
    if text in ("auto", "none"):
        return text  # type: ignore[return-value]  # one of the two literals
    found: set[int] = set()
    try:
        for part in text.split(","):
            first, _, last = part.strip().partition("-")
            begin, end = int(first), int(last or first)
            if not 0 <= begin <= end < MOST_CPUS:
                raise ValueError
            found.update(range(begin, end + 1))
    except ValueError as error:
        raise BadInput(f'--cpus {text}: must be auto, none, or CPU numbers such as "0,2-3".') from error
    return tuple(sorted(found))
