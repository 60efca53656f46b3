"""What the server answers: every method of the protocol, from the bytes of a request to the bytes of its answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edge_deploy.core.errors import BadInput, EdgeDeployError
from edge_deploy.core.require import require
from edge_deploy.core.tensor import TensorInfo
from runtimes.codecs import load_codec
from runtimes.serving.errors import CloudGone, CloudOverloaded
from runtimes.serving.exchange import CODEC, COMPUTE_NS, DEADLINE_NS, QUEUE_NS, RAW
from runtimes.serving.limits import Limits
from runtimes.serving.messages import METHODS, SERVICE, STREAM, message
from runtimes.serving.metrics import Metrics
from runtimes.serving.offers import ANY, Offer
from runtimes.serving.security import Tokens
from runtimes.serving.shelf import Shelf
from runtimes.serving.streams import Streams
from runtimes.serving.tensors import array_bytes, array_from_raw, array_from_values, datatype, fits
from runtimes.serving.wire import check_fields

__all__ = ["Service"]

NAME = "edge-deploy"
HEALTH_SERVICE = "grpc.health.v1.Health"
HEALTH = {True: b"\x08\x01", False: b"\x08\x02"}  # HealthCheckResponse: SERVING, NOT_SERVING
SMALL_MESSAGE = 65536
FIELDS_BESIDE, FIELDS_PER_TENSOR = 64, 16
MOST_NAME = 200
STREAM_SHARE = 2  # streams are open calls: one in so many of those that the server holds may be one
MOST_SAID = 1000
MOST_DIMENSIONS = 16
_log = logging.getLogger(__name__)


class _Refused(Exception):
    """A request that ends with a status other than OK."""

    def __init__(self, status: str, text: str) -> None:
        super().__init__(text)
        self.status = status


class Service:
    """The methods, over what a shelf holds; lives in one event loop.

    Attributes:
        is_ready: Whether it says that it takes requests; false while it drains.
    """

    def __init__(
        self, offers: Sequence[Offer], shelf: Shelf, *, limits: Limits, tokens: Tokens, metrics: Metrics, version: str
    ) -> None:
        self.is_ready = True
        self._held_bytes = 0
        self._shelf, self._limits, self._tokens, self._metrics = shelf, limits, tokens, metrics
        self._version = version
        self._grpc = require("grpc", extra="serve")
        self._offers: dict[str, dict[str, Offer]] = {}
        for offer in offers:
            self._offers.setdefault(offer.info.name, {})[offer.info.version] = offer
        self._streams = Streams(
            self._streamed,
            silent_s=limits.receive_s,
            answer_s=limits.answer_s,
            most=limits.at_once // STREAM_SHARE,
        )
        self._most_fields = FIELDS_BESIDE + FIELDS_PER_TENSOR * limits.tensors

    def handlers(self) -> tuple[Any, ...]:
        """What a gRPC server is given."""
        methods = {name: self._handler(name, getattr(self, f"_{name}")) for name in METHODS}
        methods[STREAM] = self._grpc.stream_stream_rpc_method_handler(self._stream)
        return (
            self._grpc.method_handlers_generic_handler(SERVICE, methods),
            self._grpc.method_handlers_generic_handler(HEALTH_SERVICE, {"Check": self._handler("Check", self._health)}),
        )

    def drain(self) -> None:
        """Say that the server is not ready, and end the streams of requests; those under way are answered."""
        self.is_ready = False
        self._streams.end()

    def _handler(self, name: str, method: Callable[[bytes, float], Awaitable[bytes]]) -> Any:
        receive_s, is_inference = self._limits.receive_s, name == "ModelInfer"
        codes = self._grpc.StatusCode

        async def answer(requests: Any, context: Any) -> bytes:
            try:
                self._admit(context)
                # As a stream of one message: only so can the time be bounded that a peer takes to send it.
                async with asyncio.timeout(receive_s):
                    raw = await anext(aiter(requests), None)
                if raw is None:
                    raise _Refused("INVALID_ARGUMENT", "no message came.")
                if not is_inference and len(raw) > SMALL_MESSAGE:
                    raise _Refused("INVALID_ARGUMENT", f"{len(raw)} bytes, {name} takes at most {SMALL_MESSAGE}.")
                return await self._held(method, raw, context.time_remaining())
            except _ANSWERED as error:
                status, text = _told(error, name)
                await context.abort(codes[status], text)
            raise AssertionError("abort always raises")

        return self._grpc.stream_unary_rpc_method_handler(answer)

    async def _stream(self, requests: Any, context: Any) -> None:
        try:
            self._admit(context)
        except _Refused as refused:
            await context.abort(self._grpc.StatusCode[refused.status], str(refused))
        await self._streams.serve(context)

    def _admit(self, context: Any) -> None:
        if not self._tokens.admit(context.invocation_metadata() or ()):
            raise _Refused("UNAUTHENTICATED", "send `authorization: Bearer TOKEN` with a token of this server.")

    async def _held(
        self, method: Callable[[bytes, float], Awaitable[bytes]], raw: bytes, left_s: float | None
    ) -> bytes:
        """Carry out one request, within what may be held at once."""
        size, held = len(raw), self._metrics.held
        held.inc()
        self._held_bytes += size
        try:
            if self._held_bytes > self._limits.held_bytes:
                raise CloudOverloaded("the server holds as many bytes of requests as it may; try again later.")
            answer_s = self._limits.answer_s
            return await method(raw, answer_s if left_s is None else min(answer_s, left_s))
        finally:
            self._held_bytes -= size
            held.dec()

    async def _streamed(self, raw: bytes) -> bytes:
        """A ModelStreamInferResponse: an answer, or why there is none."""
        try:
            return await self._held(self._infer_streamed, raw, None)
        except _ANSWERED as error:
            status, text = _told(error, STREAM)
            return _written(message("ModelStreamInferResponse")(error_message=f"{status}: {text}"))

    async def _health(self, raw: bytes, most_s: float) -> bytes:
        return HEALTH[self.is_ready]

    async def _ServerLive(self, raw: bytes, most_s: float) -> bytes:
        return _written(message("ServerLiveResponse")(live=True))

    async def _ServerReady(self, raw: bytes, most_s: float) -> bytes:
        return _written(message("ServerReadyResponse")(ready=self.is_ready))

    async def _ModelReady(self, raw: bytes, most_s: float) -> bytes:
        request = _read("ModelReadyRequest", raw)
        try:
            self._offer(request.name, request.version)
        except _Refused:
            return _written(message("ModelReadyResponse")(ready=False))
        return _written(message("ModelReadyResponse")(ready=self.is_ready))

    async def _ServerMetadata(self, raw: bytes, most_s: float) -> bytes:
        answer = message("ServerMetadataResponse")(
            name=NAME, version=self._version, extensions=["model_repository", "edge-deploy:codecs"]
        )
        return _written(answer)

    async def _ModelMetadata(self, raw: bytes, most_s: float) -> bytes:
        request = _read("ModelMetadataRequest", raw)
        offer = self._offer(request.name, request.version)
        answer = message("ModelMetadataResponse")(name=offer.info.name, platform=offer.platform)
        answer.versions.append(offer.info.version)
        for tensors, place in ((offer.info.inputs, answer.inputs), (offer.info.outputs, answer.outputs)):
            for info in tensors:
                place.add(name=info.name, datatype=datatype(info.dtype), shape=info.shape)
        return _written(answer)

    async def _RepositoryIndex(self, raw: bytes, most_s: float) -> bytes:
        answer = message("RepositoryIndexResponse")()
        for versions in self._offers.values():
            for offer in versions.values():
                answer.models.add(name=offer.info.name, version=offer.info.version, state="READY")
        return _written(answer)

    async def _ModelInfer(self, raw: bytes, most_s: float) -> bytes:
        answer = message("ModelInferResponse")()
        await self._infer(raw, most_s, answer)
        return _written(answer)

    async def _infer_streamed(self, raw: bytes, most_s: float) -> bytes:
        answer = message("ModelStreamInferResponse")()
        await self._infer(raw, most_s, answer.infer_response)
        return _written(answer)

    async def _infer(self, raw: bytes, most_s: float, answer: Any) -> None:
        """Put the outputs into an empty ModelInferResponse."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        model, status = "unknown", "OK"
        try:
            check_fields(raw, most=self._most_fields)
            request = _read("ModelInferRequest", raw)
            offer = self._offer(request.model_name, request.model_version)
            model = offer.info.name
            arrays, rows = self._arrays(request, offer)
            if DEADLINE_NS in request.parameters:
                most_s = min(most_s, request.parameters[DEADLINE_NS].int64_param * 1e-9)
            times: list[tuple[float, float]] = []
            found = await self._shelf.infer(
                offer,
                arrays,
                rows=rows,
                deadline_s=began_s + most_s,
                told=lambda waited_s, ran_s: times.append((waited_s, ran_s)),
            )
            queue_s = max((waited_s for waited_s, _ in times), default=0.0)
            _fill(answer, request, offer, found, queue_s=queue_s, compute_s=loop.time() - began_s - queue_s)
        except BaseException as error:
            status = _status_of(error)
            raise
        finally:
            self._metrics.requests.labels(model, status).inc()
            if status == "OK":
                self._metrics.seconds.labels(model).observe(loop.time() - began_s)

    def _offer(self, name: str, version: str) -> Offer:
        versions = self._offers.get(name)
        if versions is None:
            known = ", ".join(list(self._offers)[:8])
            raise _Refused("NOT_FOUND", f"model {name[:MOST_NAME]!r} is unknown; there is {known}.")
        if not version:
            if len(versions) > 1:
                raise _Refused("NOT_FOUND", f"model {name} has versions {', '.join(versions)}; ask for one of them.")
            return next(iter(versions.values()))
        if version not in versions:
            raise _Refused("NOT_FOUND", f"model {name}: version {version[:MOST_NAME]!r}; it has {', '.join(versions)}.")
        return versions[version]

    def _arrays(self, request: Any, offer: Offer) -> tuple[Mapping[str, np.ndarray], int]:
        """Inputs as the session takes them, and how many rows they have."""
        inputs = offer.info.inputs
        sent = {each.name: each for each in request.inputs}
        if len(request.inputs) != len(inputs) or any(info.name not in sent for info in inputs):
            found = ", ".join(name[:MOST_NAME] for name in list(sent)[:8]) or "none"
            raise BadInput(f"inputs: {found}; {offer.info.name} takes {', '.join(info.name for info in inputs)}.")
        problems = []
        for info in inputs:
            each = sent[info.name]
            if each.datatype != datatype(info.dtype) or not fits(each.shape, info):
                found = f"{each.datatype[:MOST_NAME]} {list(each.shape[:MOST_DIMENSIONS])}"
                problems.append(f"input {info.name}: {found}, must be {datatype(info.dtype)} {list(info.shape)}.")
        if problems:
            raise BadInput(*problems)
        for wanted in request.outputs:
            if all(wanted.name != info.name for info in offer.info.outputs):
                raise BadInput(f"output {wanted.name[:MOST_NAME]!r}: {offer.info.name} has none of this name.")
        # Rows first: a codec takes memory for as many as the request says that there are.
        rows = self._rows(request, offer)
        return self._read_arrays(request, {info.name: info for info in inputs}), rows

    def _rows(self, request: Any, offer: Offer) -> int:
        if ANY not in offer.batches and len(offer.batches) < 2:
            return 1
        rows = {each.shape[0] for each in request.inputs}
        if len(rows) != 1:
            raise BadInput(f"inputs: have {', '.join(map(str, sorted(rows)))} rows; all must have the same number.")
        count = int(rows.pop())
        if count > self._limits.rows:
            raise BadInput(f"inputs: {count} rows; this server takes at most {self._limits.rows} in one request.")
        return count

    def _read_arrays(self, request: Any, expected: Mapping[str, TensorInfo]) -> Mapping[str, np.ndarray]:
        codec = request.parameters[CODEC].string_param if CODEC in request.parameters else RAW
        if codec != RAW:
            if len(request.raw_input_contents) != 1:
                raise BadInput(f"codec {codec[:MOST_NAME]}: raw_input_contents must have one entry.")
            shapes = {each.name: tuple(each.shape) for each in request.inputs}
            tensors = [replace(info, shape=shapes[name]) for name, info in expected.items()]
            decoded = load_codec(codec[:MOST_NAME]).decode(request.raw_input_contents[0], tensors)
            return dict(zip(expected, decoded, strict=True))
        if not request.raw_input_contents:
            return {
                each.name: array_from_values(each.contents, expected[each.name].dtype, each.shape, name=each.name)
                for each in request.inputs
            }
        if len(request.raw_input_contents) != len(request.inputs):
            found = f"{len(request.raw_input_contents)} entries"
            raise BadInput(f"raw_input_contents: {found}, must be {len(request.inputs)}, one for each input.")
        return {
            each.name: array_from_raw(raw, expected[each.name].dtype, each.shape, name=each.name)
            for each, raw in zip(request.inputs, request.raw_input_contents, strict=True)
        }


def _fill(
    answer: Any, request: Any, offer: Offer, arrays: Mapping[str, np.ndarray], *, queue_s: float, compute_s: float
) -> None:
    answer.model_name, answer.model_version, answer.id = offer.info.name, offer.info.version, request.id
    answer.parameters[QUEUE_NS].int64_param = round(queue_s * 1e9)
    answer.parameters[COMPUTE_NS].int64_param = round(compute_s * 1e9)
    wanted = {each.name for each in request.outputs}
    for info in offer.info.outputs:
        if not wanted or info.name in wanted:
            array = arrays[info.name]
            answer.outputs.add(name=info.name, datatype=datatype(info.dtype), shape=array.shape)
            answer.raw_output_contents.append(array_bytes(array))


def _read(name: str, raw: bytes) -> Any:
    from google.protobuf.message import DecodeError

    try:
        return message(name).FromString(raw)
    except DecodeError as error:
        raise BadInput(f"{len(raw)} bytes that are no {name}.") from error


def _written(answer: Any) -> bytes:
    written: bytes = answer.SerializeToString()
    return written


_ANSWERED = (_Refused, TimeoutError, EdgeDeployError)


def _told(error: BaseException, name: str) -> tuple[str, str]:
    """Status and words for the client."""
    if isinstance(error, TimeoutError):
        return "DEADLINE_EXCEEDED", "the request, or its answer, took too long."
    status = _status_of(error)
    if status == "INTERNAL":
        _log.error("%s: %s", name, error)
    return status, str(error)[:MOST_SAID]


def _status_of(error: BaseException) -> str:
    if isinstance(error, _Refused):
        return error.status
    known = (
        (CloudOverloaded, "RESOURCE_EXHAUSTED"),
        (CloudGone, "UNAVAILABLE"),
        (TimeoutError, "DEADLINE_EXCEEDED"),
        (BadInput, "INVALID_ARGUMENT"),
        (asyncio.CancelledError, "CANCELLED"),
    )
    return next((status for kind, status in known if isinstance(error, kind)), "INTERNAL")
