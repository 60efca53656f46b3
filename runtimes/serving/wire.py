"""Look through the bytes of a request before a parser spends memory on them: depth, lengths, number of fields.

Two bytes of a message can become an object of a hundred; within the limit of bytes it could still take fifty times as
times as many. What a real request needs is known, so the rest is refused before protobuf sees it.
"""

from __future__ import annotations

from typing import Any

from edge_deploy.core.errors import BadInput

__all__ = ["check_fields"]

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
LONGEST_VARINT = 10
LARGEST_TAG = 0xFFFFFFFF

# Fields of ModelInferRequest, by number, that hold messages; of each the fields that hold messages again.
_PARAMETERS: dict[int, Any] = {4: {2: {}}}
_NESTED: dict[int, Any] = {4: {2: {}}, 5: {**_PARAMETERS, 5: {}}, 6: {2: {2: {}}}}


def check_fields(raw: bytes, *, most: int) -> None:
    """Refuse a ModelInferRequest of more than `most` fields, those of inner messages included, or a broken one.

    Raises:
        BadInput: Too many fields, or not the wire format of protobuf.
    """
    left = _count(raw, 0, len(raw), _NESTED, most)
    if left < 0:
        raise BadInput(f"request: more than {most} fields; send fewer tensors and parameters, and raw contents.")


def _count(raw: bytes, place: int, end: int, nested: dict[int, Any], left: int) -> int:
    """Fields that are left of the allowance after `raw[place:end]`; negative as soon as it is used up."""
    while place < end:
        left -= 1
        if left < 0:
            return left
        tag, place = _varint(raw, place, end)
        if not 8 <= tag <= LARGEST_TAG:
            # Some parsers cut such a tag to 32 bits and find a field that was not counted here.
            raise BadInput(f"request: a field of number {tag >> 3}; it is damaged.")
        kind = tag & 7
        if kind == BYTES:
            length, place = _varint(raw, place, end)
            if place + length > end:
                raise BadInput("request: a field is longer than the message; it is damaged.")
            inner = nested.get(tag >> 3)
            if inner is not None:
                left = _count(raw, place, place + length, inner, left)
                if left < 0:
                    return left
            place += length
        elif kind == VARINT:
            _, place = _varint(raw, place, end)
        elif kind == FIXED64:
            place += 8
        elif kind == FIXED32:
            place += 4
        else:
            raise BadInput(f"request: wire type {kind}; it is damaged.")
    if place != end:
        raise BadInput("request: ends in the middle of a field; it is damaged.")
    return left


def _varint(raw: bytes, place: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while place < end and shift < 7 * LONGEST_VARINT:
        byte = raw[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
    raise BadInput("request: a number without an end; it is damaged.")
