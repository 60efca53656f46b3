"""Call a server of the Open Inference Protocol; any number of threads may share one client."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np

from edge_deploy.core.require import require
from edge_deploy.core.tensor import TensorInfo
from runtimes.serving.artifact_calls import ArtifactCalls
from runtimes.serving.channel import call_metadata, client_credentials, client_options
from runtimes.serving.contracts import Cancellation, Endpoint, RemoteModel, Reply, SegmentInfo
from runtimes.serving.errors import CloudGone
from runtimes.serving.exchange import RAW, error_for, padded
from runtimes.serving.fast_lane import FastLane
from runtimes.serving.messages import method_path

__all__ = ["RemoteClient"]


class RemoteClient:
    """One connection to one server, for the cuts of one artifact; see `runtimes.serving.contracts.RemoteSegment`.

    Nothing is connected before the first call; a connection that broke is made again by a later call.

    Args:
        artifact: Name of the model on the wire, without a cut.
        digest: sha256 of the model file that was cut; the server must have the same. Empty to take any.
        boundaries: What crosses each cut, by its id; codecs other than raw need it.
        outputs: What the model gives; answers are compared with it. None to take any.
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
        self._grpc = require("grpc", extra="run")
        self._where = f"server {endpoint.address}"
        self._artifact = ArtifactCalls(
            artifact, where=self._where, digest=digest, boundaries=boundaries, outputs=outputs
        )
        self._metadata = call_metadata(endpoint)
        options = client_options(endpoint)
        if endpoint.tls is None:
            self._channel = self._grpc.insecure_channel(endpoint.address, options)
        else:
            self._channel = self._grpc.secure_channel(endpoint.address, client_credentials(endpoint.tls), options)
        self._lane = FastLane(self._channel, metadata=self._metadata, where=self._where)
        self._has_lane = False
        self._calls: dict[str, Any] = {}  # gRPC's own callables, which carry `future` too
        self._is_closed = False

    def infer(
        self,
        arrays: Mapping[str, np.ndarray],
        *,
        deadline_s: float,
        cut: str,
        codec: str = RAW,
        request_id: str = "",
        cancel: Cancellation | None = None,
    ) -> Reply:
        """See `runtimes.serving.contracts.RemoteSegment.infer`."""
        begun = time.perf_counter()
        told_s = deadline_s if self._has_lane else 0.0  # gRPC tells the deadline of an ordinary call
        request = self._artifact.inference(arrays, cut=cut, codec=codec, request_id=request_id, deadline_s=told_s)
        encoded = time.perf_counter()
        raw = self._lane.ask(request, wait_s=deadline_s, cancel=cancel) if self._has_lane else None
        streamed = raw is not None
        if raw is None:
            raw = self._call("ModelInfer", request, deadline_s - (time.perf_counter() - encoded), cancel)
        reply = self._artifact.reply(raw, request_id=request_id, streamed=streamed)
        # Only a server of ours tells its times, and only of such a one it is known what it makes of a stream.
        self._has_lane = reply.compute_s >= 0
        reply.encode_s, reply.sent_bytes = encoded - begun, len(request)
        return reply

    def metadata(self, *, deadline_s: float) -> RemoteModel:
        """See `runtimes.serving.contracts.RemoteSegment.metadata`."""
        return self._artifact.metadata(self._call("RepositoryIndex", b"", deadline_s))

    def segment(self, cut: str, *, deadline_s: float) -> SegmentInfo:
        """See `runtimes.serving.contracts.RemoteSegment.segment`."""
        return self._artifact.segment(self._call("ModelMetadata", self._artifact.segment_request(cut), deadline_s))

    def is_ready(self, *, deadline_s: float, padding: int = 0) -> bool:
        """Whether the server takes requests: the lightest call there is; raises as `infer` does."""
        return self._artifact.is_ready(self._call("ServerReady", padded(padding), deadline_s))

    def close(self) -> None:
        """End the connection; calls under way end as `CloudGone`."""
        self._is_closed = True
        self._lane.close()
        self._channel.close()

    def __enter__(self) -> RemoteClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, method: str, request: bytes, deadline_s: float, cancel: Cancellation | None = None) -> bytes:
        if self._is_closed:
            raise CloudGone(f"{self._where}: the client is closed.")
        call = self._calls.get(method)
        try:
            if call is None:
                call = self._calls[method] = self._channel.unary_unary(method_path(method))
            if cancel is None:
                answer: bytes = call(request, timeout=deadline_s, metadata=self._metadata)
                return answer
            under_way = call.future(request, timeout=deadline_s, metadata=self._metadata)
            cancel.when_asked(under_way.cancel)
            answer = under_way.result()
            return answer
        except self._grpc.FutureCancelledError as error:
            raise CloudGone(f"{self._where}: the request was cancelled.") from error
        except self._grpc.RpcError as error:
            raise _ours(error, self._where) from error
        except ValueError as error:  # what gRPC raises of a channel that was closed meanwhile
            raise CloudGone(f"{self._where}: {error}") from error


def _ours(error: Any, where: str) -> Exception:
    code = error.code()
    return error_for(code.name if code is not None else "UNKNOWN", error.details() or "", where=where)
