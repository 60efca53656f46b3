"""Call a server of the Open Inference Protocol from an event loop; the twin of `runtimes.serving.client`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np

from edge_deploy.core.require import require
from edge_deploy.core.tensor import TensorInfo
from runtimes.codecs import load_codec
from runtimes.contracts import Codec
from runtimes.serving.channel import call_metadata, client_credentials, client_options
from runtimes.serving.contracts import Endpoint, RemoteModel, Reply, SegmentInfo, wire_name
from runtimes.serving.errors import CloudGone
from runtimes.serving.exchange import RAW, error_for, read_answer, read_index, read_segment, write_request
from runtimes.serving.messages import message, method_path

__all__ = ["AsyncRemoteClient"]


class AsyncRemoteClient:
    """One connection to one server, for the cuts of one artifact, in the running event loop.

    Arguments and errors are those of `runtimes.serving.client.RemoteClient`; cancelling the task cancels the call.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        artifact: str,
        digest: str = "",
        boundaries: Mapping[str, Sequence[TensorInfo]] | None = None,
        outputs: Sequence[TensorInfo] | None = None,
    ) -> None:
        grpc = require("grpc", extra="run")
        self._rpc_error = grpc.RpcError
        self._usage_error = grpc.aio.UsageError
        self._artifact, self._digest = artifact, digest
        self._boundaries, self._outputs = dict(boundaries or {}), outputs
        self._where = f"server {endpoint.address}"
        self._metadata = call_metadata(endpoint)
        options = client_options(endpoint)
        if endpoint.tls is None:
            self._channel = grpc.aio.insecure_channel(endpoint.address, options)
        else:
            self._channel = grpc.aio.secure_channel(endpoint.address, client_credentials(endpoint.tls), options)
        self._calls: dict[str, Callable[..., Any]] = {}
        self._coders: dict[str, Codec] = {}
        self._is_closed = False

    async def infer(
        self,
        arrays: Mapping[str, np.ndarray],
        *,
        deadline_s: float,
        cut: str,
        codec: str = RAW,
        request_id: str = "",
    ) -> Reply:
        """See `runtimes.serving.contracts.RemoteSegment.infer`."""
        begun = time.perf_counter()
        request = write_request(
            arrays,
            model=wire_name(self._artifact, cut),
            version=self._digest,
            request_id=request_id,
            codec=codec,
            coder=self._coder(codec),
            boundary=self._boundaries.get(cut),
        )
        encoded = time.perf_counter()
        raw = await self._call("ModelInfer", request, deadline_s)
        reply = read_answer(raw, where=self._where, version=self._digest, request_id=request_id, outputs=self._outputs)
        reply.encode_s, reply.sent_bytes = encoded - begun, len(request)
        return reply

    async def metadata(self, *, deadline_s: float) -> RemoteModel:
        """See `runtimes.serving.contracts.RemoteSegment.metadata`."""
        raw = await self._call("RepositoryIndex", b"", deadline_s)
        return read_index(raw, where=self._where, artifact=self._artifact, version=self._digest)

    async def segment(self, cut: str, *, deadline_s: float) -> SegmentInfo:
        """See `runtimes.serving.contracts.RemoteSegment.segment`."""
        request = message("ModelMetadataRequest")(name=wire_name(self._artifact, cut), version=self._digest)
        raw = await self._call("ModelMetadata", request.SerializeToString(), deadline_s)
        return read_segment(raw, where=self._where)

    async def is_ready(self, *, deadline_s: float) -> bool:
        """Whether the server takes requests; raises as `infer` does."""
        raw = await self._call("ServerReady", b"", deadline_s)
        return bool(message("ServerReadyResponse").FromString(raw).ready)

    async def close(self) -> None:
        """End the connection; calls under way end as `CloudGone`."""
        self._is_closed = True
        await self._channel.close()

    async def __aenter__(self) -> AsyncRemoteClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _coder(self, codec: str) -> Codec | None:
        if codec == RAW:
            return None
        if codec not in self._coders:
            self._coders[codec] = load_codec(codec)
        return self._coders[codec]

    async def _call(self, method: str, request: bytes, deadline_s: float) -> bytes:
        if self._is_closed:
            raise CloudGone(f"{self._where}: the client is closed.")
        call = self._calls.get(method)
        if call is None:
            call = self._calls[method] = self._channel.unary_unary(method_path(method))
        try:
            answer: bytes = await call(request, timeout=deadline_s, metadata=self._metadata)
        except self._rpc_error as error:
            code = error.code()
            raise error_for(code.name, error.details() or "", where=self._where) from error
        except self._usage_error as error:  # what gRPC raises of a channel that was closed meanwhile
            raise CloudGone(f"{self._where}: {error}") from error
        return answer
