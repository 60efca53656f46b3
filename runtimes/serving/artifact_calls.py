"""What the sync and the async client have in common: the bytes of calls for one artifact, and what comes back. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edge_deploy.core.tensor import TensorInfo
from runtimes.codecs import load_codec
from runtimes.contracts import Codec
from runtimes.serving.contracts import RemoteModel, Reply, SegmentInfo, wire_name
from runtimes.serving.exchange import RAW, read_answer, read_index, read_segment, write_request
from runtimes.serving.messages import message

__all__ = ["ArtifactCalls"]


class ArtifactCalls:
    """Requests for the cuts of one artifact, and their answers; codecs that remember what they sent are kept.

    Args:
        artifact: Name on the wire, without a cut.
        where: The server, for messages.
        digest, boundaries, outputs: See `runtimes.serving.client.RemoteClient`.
    """

    def __init__(
        self,
        artifact: str,
        *,
        where: str,
        digest: str,
        boundaries: Mapping[str, Sequence[TensorInfo]] | None,
        outputs: Sequence[TensorInfo] | None,
    ) -> None:
        self._artifact, self._where, self._digest = artifact, where, digest
        self._boundaries, self._outputs = dict(boundaries or {}), outputs
        self._coders: dict[str, Codec] = {}

    def inference(
        self, arrays: Mapping[str, np.ndarray], *, cut: str, codec: str, request_id: str, deadline_s: float = 0.0
    ) -> bytes:
        """See `runtimes.serving.exchange.write_request`."""
        coder = None
        if codec != RAW:
            coder = self._coders.get(codec) or self._coders.setdefault(codec, load_codec(codec))
        return write_request(
            arrays,
            model=wire_name(self._artifact, cut),
            version=self._digest,
            request_id=request_id,
            codec=codec,
            coder=coder,
            boundary=self._boundaries.get(cut),
            deadline_s=deadline_s,
        )

    def reply(self, raw: bytes, *, request_id: str, streamed: bool = False) -> Reply:
        """See `runtimes.serving.exchange.read_answer`."""
        return read_answer(
            raw,
            where=self._where,
            version=self._digest,
            request_id=request_id,
            outputs=self._outputs,
            streamed=streamed,
        )

    def metadata(self, raw: bytes) -> RemoteModel:
        """What a RepositoryIndexResponse says of the artifact."""
        return read_index(raw, where=self._where, artifact=self._artifact, version=self._digest)

    def segment_request(self, cut: str) -> bytes:
        """A ModelMetadataRequest."""
        request = message("ModelMetadataRequest")(name=wire_name(self._artifact, cut), version=self._digest)
        written: bytes = request.SerializeToString()
        return written

    def segment(self, raw: bytes) -> SegmentInfo:
        """A ModelMetadataResponse."""
        return read_segment(raw, where=self._where)

    def is_ready(self, raw: bytes) -> bool:
        """A ServerReadyResponse."""
        return bool(message("ServerReadyResponse").FromString(raw).ready)
