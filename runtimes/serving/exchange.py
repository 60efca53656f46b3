"""One request and its answer, as bytes: what a client writes and what it accepts. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo
from runtimes.codecs import load_codec
from runtimes.contracts import Codec
from runtimes.serving.contracts import RemoteModel, Reply, SegmentInfo, cut_of
from runtimes.serving.errors import (
    CloudError,
    CloudGarbled,
    CloudGone,
    CloudOverloaded,
    CloudRefused,
    CloudTimedOut,
)
from runtimes.serving.messages import message
from runtimes.serving.tensors import array_bytes, array_from_raw, array_from_values, datatype_of, dtype_of, fits, holder

__all__ = [
    "CODEC",
    "COMPUTE_NS",
    "DEADLINE_NS",
    "QUEUE_NS",
    "RAW",
    "error_for",
    "padded",
    "read_answer",
    "read_index",
    "read_segment",
    "write_request",
]

RAW = "raw"
CODEC = "codec"  # parameter of a request: how the one entry of raw_input_contents was made of the tensors
TOO_LARGE = "larger than max"  # what gRPC says of a message above a limit, with the status of an overload
DEADLINE_NS = "deadline_ns"  # parameter of a request on a stream: how long its sender will wait
QUEUE_NS, COMPUTE_NS = "queue_ns", "compute_ns"  # parameters of an answer: the server's own times
MOST_DETAIL = 300
PADDING_TAG = b"\x7a"  # bytes under number 15, which no message of the protocol has: parsers skip it

_BY_STATUS: dict[str, type[CloudError]] = {
    "DEADLINE_EXCEEDED": CloudTimedOut,
    "RESOURCE_EXHAUSTED": CloudOverloaded,
    "INVALID_ARGUMENT": CloudRefused,
    "NOT_FOUND": CloudRefused,
    "FAILED_PRECONDITION": CloudRefused,
    "OUT_OF_RANGE": CloudRefused,
    "PERMISSION_DENIED": CloudRefused,
    "UNAUTHENTICATED": CloudRefused,
    "UNIMPLEMENTED": CloudRefused,
    "INTERNAL": CloudGarbled,
    "UNKNOWN": CloudGarbled,
    "DATA_LOSS": CloudGarbled,
}


def write_request(
    arrays: Mapping[str, np.ndarray],
    *,
    model: str,
    version: str,
    request_id: str,
    codec: str = RAW,
    coder: Codec | None = None,
    boundary: Sequence[TensorInfo] | None = None,
    deadline_s: float = 0.0,
) -> bytes:
    """A ModelInferRequest with raw contents.

    Args:
        deadline_s: How long the sender will wait, for a request that goes over a stream; 0 to say nothing of it.
        coder: The codec of this name that the sender keeps, because it may remember what it sent; None for a new one.
        boundary: What the arrays are; needed by every codec but raw.

    Raises:
        BadInput: An array of a type that cannot travel, or a codec without a known boundary.
    """
    request = message("ModelInferRequest")(model_name=model, model_version=version, id=request_id)
    for name, array in arrays.items():
        request.inputs.add(name=name, datatype=datatype_of(array, name), shape=array.shape)
    if deadline_s > 0:
        request.parameters[DEADLINE_NS].int64_param = int(deadline_s * 1e9)
    if codec == RAW:
        request.raw_input_contents.extend(map(array_bytes, arrays.values()))
    else:
        if boundary is None:
            raise BadInput(f"codec {codec}: the client was not told what crosses the cut; send raw.")
        request.parameters[CODEC].string_param = codec
        known = [_sized(info, arrays) for info in boundary]
        if {info.name for info in known} != set(arrays):
            raise BadInput(f"boundary: has {', '.join(arrays)}, must be {', '.join(info.name for info in known)}.")
        coder = coder or load_codec(codec)
        request.raw_input_contents.append(coder.encode([arrays[info.name] for info in known], known))
    written: bytes = request.SerializeToString()
    return written


def padded(count: int) -> bytes:
    """A message without values, about so many bytes long."""
    if count <= 0:
        return b""
    length, left = bytearray(), count
    while left > 0x7F:
        length.append(left & 0x7F | 0x80)
        left >>= 7
    return PADDING_TAG + bytes(length) + bytes([left]) + bytes(count)


def _sized(info: TensorInfo, arrays: Mapping[str, np.ndarray]) -> TensorInfo:
    from dataclasses import replace

    return replace(info, shape=arrays[info.name].shape) if info.name in arrays else info


def read_answer(
    raw: bytes,
    *,
    where: str,
    version: str,
    request_id: str,
    outputs: Sequence[TensorInfo] | None = None,
    streamed: bool = False,
) -> Reply:
    """Outputs by name out of a ModelInferResponse, and the server's own times where it tells them.

    Args:
        streamed: It came over a stream, in a ModelStreamInferResponse.
        version: That the answer must bear; empty for any.
        outputs: What the model gives, where the caller knows it.

    Raises:
        CloudRefused: Another version answered.
        CloudGarbled: Not a response, the answer to another request, or other tensors than the model gives.
        CloudError: What came over a stream was an error.
    """
    if streamed:
        told = _parse("ModelStreamInferResponse", raw, where)
        if told.error_message:
            status, _, text = told.error_message.partition(": ")
            raise error_for(status, text, where=where)
        answer = told.infer_response
    else:
        answer = _parse("ModelInferResponse", raw, where)
    if answer.id and request_id and answer.id != request_id:
        raise CloudGarbled(f"{where}: answered request {answer.id[:40]!r}, asked was {request_id!r}.")
    if version and answer.model_version and answer.model_version != version:
        raise CloudRefused(f"{where}: version {answer.model_version[:64]!r} answered, asked was {version}.")
    if answer.raw_output_contents and len(answer.raw_output_contents) != len(answer.outputs):
        found = f"{len(answer.outputs)} outputs, {len(answer.raw_output_contents)} of them with contents"
        raise CloudGarbled(f"{where}: {found}.")
    arrays: dict[str, np.ndarray] = {}
    try:
        for place, output in enumerate(answer.outputs):
            arrays[output.name] = _array(answer, place, output)
    except BadInput as error:
        raise CloudGarbled(*(f"{where}: {problem}" for problem in error.problems)) from error
    if outputs is not None:
        _compare(arrays, outputs, where)
    return Reply(
        arrays,
        queue_s=_seconds(answer, QUEUE_NS),
        compute_s=_seconds(answer, COMPUTE_NS),
        received_bytes=len(raw),
    )


def _seconds(answer: Any, name: str) -> float:
    """A time that the server tells; -1 where it tells none."""
    return max(answer.parameters[name].int64_param, 0) * 1e-9 if name in answer.parameters else -1.0


def _array(answer: Any, place: int, output: Any) -> np.ndarray:
    dtype = dtype_of(output.datatype)
    shape = tuple(output.shape)
    if min(shape, default=0) < 0:
        raise BadInput(f"tensor {output.name}: shape {shape}.")
    if answer.raw_output_contents:
        return array_from_raw(answer.raw_output_contents[place], dtype, shape, name=output.name)
    return array_from_values(output.contents, dtype, shape, name=output.name)


def _compare(arrays: Mapping[str, np.ndarray], outputs: Sequence[TensorInfo], where: str) -> None:
    problems = []
    for info in outputs:
        found = arrays.get(info.name)
        wanted = f"{where}: output {info.name} must be {holder(info.dtype)} {info.shape}"
        if found is None:
            problems.append(f"{wanted}: missing among {', '.join(list(arrays)[:8]) or 'none'}.")
        elif found.dtype != np.dtype(holder(info.dtype)) or not fits(found.shape, info):
            problems.append(f"{wanted}, is {found.dtype} {found.shape}.")
    if problems:
        raise CloudGarbled(*problems)


def read_segment(raw: bytes, *, where: str) -> SegmentInfo:
    """A ModelMetadataResponse.

    Raises:
        CloudGarbled: Not one.
    """
    answer = _parse("ModelMetadataResponse", raw, where)
    try:
        inputs, outputs = (
            tuple(TensorInfo(name=each.name, shape=tuple(each.shape), dtype=dtype_of(each.datatype)) for each in some)
            for some in (answer.inputs, answer.outputs)
        )
    except BadInput as error:
        raise CloudGarbled(*(f"{where}: {problem}" for problem in error.problems)) from error
    version = answer.versions[0] if answer.versions else ""
    return SegmentInfo(name=answer.name, version=version, inputs=inputs, outputs=outputs)


def read_index(raw: bytes, *, where: str, artifact: str, version: str) -> RemoteModel:
    """What a RepositoryIndexResponse says of one artifact; of its version, where that is not empty.

    Raises:
        CloudRefused: The server has no such artifact, or another version of it.
        CloudGarbled: Not such a response.
    """
    answer = _parse("RepositoryIndexResponse", raw, where)
    mine = [entry for entry in answer.models if cut_of(entry.name)[0] == artifact]
    found = [entry for entry in mine if not version or entry.version == version]
    if not found:
        if mine:
            raise CloudRefused(f"{where}: has {artifact} of version {mine[0].version[:64]}, asked was {version}.")
        known = ", ".join(sorted({cut_of(entry.name)[0] for entry in answer.models})[:8])
        raise CloudRefused(f"{where}: has no model {artifact}; it has {known or 'none'}.")
    digest = found[0].version
    cuts = tuple(cut_of(entry.name)[1] for entry in found if entry.version == digest)
    return RemoteModel(name=artifact, digest=digest, cuts=cuts)


def error_for(status: str, detail: str, *, where: str) -> CloudError:
    """The error that a gRPC status stands for: connections that end in whatever way are `CloudGone`."""
    text = " ".join(detail.split())[:MOST_DETAIL]
    kind = _BY_STATUS.get(status, CloudGone)
    if kind is CloudOverloaded and TOO_LARGE in text:
        kind = CloudRefused
    return kind(f"{where}: {status}: {text or 'no details'}")


def _parse(name: str, raw: bytes, where: str) -> Any:
    from google.protobuf.message import DecodeError

    try:
        return message(name).FromString(raw)
    except DecodeError as error:
        raise CloudGarbled(f"{where}: answered {len(raw)} bytes that are no {name}.") from error
