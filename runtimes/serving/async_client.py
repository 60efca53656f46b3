"""Call a server of the Open Inference Protocol from an event loop; the twin of `runtimes.serving.client`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np

from edge_deploy.core.require import require
from edge_deploy.core.tensor import TensorInfo
from runtimes.serving.artifact_calls import ArtifactCalls
from runtimes.serving.channel import call_metadata, client_credentials, client_options
from runtimes.serving.contracts import Endpoint, RemoteModel, Reply, SegmentInfo
from runtimes.serving.errors import CloudGone
from runtimes.serving.exchange import RAW, error_for
from runtimes.serving.messages import method_path

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
        self._where = f"server {endpoint.address}"
        self._artifact = ArtifactCalls(
            artifact, where=self._where, digest=digest, boundaries=boundaries, outputs=outputs
        )
        self._metadata = call_metadata(endpoint)
        options = client_options(endpoint)
        if endpoint.tls is None:
            self._channel = grpc.aio.insecure_channel(endpoint.address, options)
        else:
            self._channel = grpc.aio.secure_channel(endpoint.address, client_credentials(endpoint.tls), options)
        self._calls: dict[str, Callable[..., Any]] = {}
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
        request = self._artifact.inference(arrays, cut=cut, codec=codec, request_id=request_id)
        encoded = time.perf_counter()
        reply = self._artifact.reply(await self._call("ModelInfer", request, deadline_s), request_id=request_id)
        reply.encode_s, reply.sent_bytes = encoded - begun, len(request)
        return reply

    async def metadata(self, *, deadline_s: float) -> RemoteModel:
        """See `runtimes.serving.contracts.RemoteSegment.metadata`."""
        return self._artifact.metadata(await self._call("RepositoryIndex", b"", deadline_s))

    async def segment(self, cut: str, *, deadline_s: float) -> SegmentInfo:
        """See `runtimes.serving.contracts.RemoteSegment.segment`."""
        raw = await self._call("ModelMetadata", self._artifact.segment_request(cut), deadline_s)
        return self._artifact.segment(raw)

    async def is_ready(self, *, deadline_s: float) -> bool:
        """Whether the server takes requests; raises as `infer` does."""
        return self._artifact.is_ready(await self._call("ServerReady", b"", deadline_s))

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
