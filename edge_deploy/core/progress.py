"""What long work says of itself: the names of its stages, and within a stage how far it is."""

from __future__ import annotations

__all__ = ["Growth"]


class Growth(str):
    """How far the present stage is, e.g. "model.tflite: 120 of 338 MB"; no stage of its own."""

    __slots__ = ()
