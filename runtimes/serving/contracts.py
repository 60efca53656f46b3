"""Where a server is, what it says of the models it serves, and what a client of one of them offers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from edge_deploy.core.cut import ALL_CLOUD
from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo

__all__ = [
    "Cancellation",
    "Endpoint",
    "RemoteModel",
    "RemoteSegment",
    "Reply",
    "SegmentInfo",
    "TlsFiles",
    "cut_of",
    "parse_address",
    "wire_name",
]

LARGEST_PORT = 65535
_ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^\s:\[\]]+)):([0-9]{1,5})\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files of one side of a TLS connection.

    Attributes:
        authority: Certificates that the other side's must be signed by; None in a client for the system's own, in a
            server for clients without certificates.
        certificate: One's own; None in a client that shows none.
        key: Private key of `certificate`.
        server_name: In a client, the name that the server's certificate must bear; empty for the endpoint's host.
    """

    authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str = ""

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise BadInput("tls: a certificate and its private key come together; give both, or neither.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A server of the Open Inference Protocol.

    Attributes:
        tls: None for a connection in the clear.
        token: Sent with every call as a bearer token; empty for none.
    """

    host: str
    port: int
    tls: TlsFiles | None = None
    token: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if not 0 < self.port <= LARGEST_PORT:
            raise BadInput(f"endpoint {self.host}: port = {self.port}: must be 1 to {LARGEST_PORT}.")

    @property
    def address(self) -> str:
        """HOST:PORT as gRPC takes it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentInfo:
    """One model on the wire.

    Attributes:
        name: Of the whole artifact, or `name@cut` of the tail behind a cut.
        version: sha256 of the model file that was cut, or of the model itself; other servers say what they like.
        inputs: Names, shapes (-1: any) and types; scales are not told by this protocol.
    """

    name: str
    version: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteModel:
    """What a server has of one artifact.

    Attributes:
        digest: sha256 of the model file, as the server tells it; empty where it tells none.
        cuts: Ids of the cuts whose tails it serves; "all-cloud" for the whole model. Empty where the server cannot
            list its models: ask for a segment by name then.
        ready: It takes requests.
    """

    name: str
    digest: str
    cuts: tuple[str, ...]
    ready: bool = True


class Reply(dict[str, np.ndarray]):
    """Outputs by name, and how the request went; what is not known stays as it is.

    A server of ours tells its times as integer parameters `queue_ns` and `compute_ns` of the response; the edge takes
    them off what a request took, and the rest is the link.

    Attributes:
        queue_s: That the request waited in the server; -1 where it does not say.
        compute_s: Of decoding and inference there, with the batch it was in; -1 as above.
        encode_s: That this side spent on encoding the boundary.
        sent_bytes: Of the request's tensors as they travelled; `received_bytes`: of the answer's.
    """

    __slots__ = ("compute_s", "encode_s", "queue_s", "received_bytes", "sent_bytes")

    def __init__(
        self,
        arrays: Mapping[str, np.ndarray],
        *,
        queue_s: float = -1.0,
        compute_s: float = -1.0,
        encode_s: float = 0.0,
        sent_bytes: int = 0,
        received_bytes: int = 0,
    ) -> None:
        super().__init__(arrays)
        self.queue_s, self.compute_s, self.encode_s = queue_s, compute_s, encode_s
        self.sent_bytes, self.received_bytes = sent_bytes, received_bytes


class Cancellation:
    """A caller's wish to have no answer any more; may be asked for from any thread, once or often."""

    __slots__ = ("_acts", "is_asked")

    def __init__(self) -> None:
        self.is_asked = False
        self._acts: list[Callable[[], object]] = []

    def ask(self) -> None:
        """Ask for it: whatever waits for this request gives up."""
        self.is_asked = True
        while self._acts:
            self._acts.pop()()

    def when_asked(self, act: Callable[[], object]) -> None:
        """Call `act` when it is asked for; at once where it was already. It must not raise."""
        self._acts.append(act)
        if self.is_asked:
            self.ask()


class RemoteSegment(Protocol):
    """The cloud half of one artifact, behind any of its cuts. Calls may come from several threads at once."""

    def infer(
        self,
        arrays: Mapping[str, np.ndarray],
        *,
        deadline_s: float,
        cut: str,
        codec: str = "raw",
        request_id: str = "",
        cancel: Cancellation | None = None,
    ) -> Reply:
        """The outputs of the tail behind `cut`, given the tensors that cross it.

        Args:
            arrays: Boundary by tensor name; for "all-cloud" the model's inputs.
            deadline_s: Seconds from now; the server learns of it and drops what it could only answer too late.
            codec: As `runtimes.codecs.load_codec` takes it; what is not "raw" only servers of ours understand.
            request_id: Comes back with the answer, and is compared.
            cancel: Ends the call with `CloudGone` when it is asked for.

        Raises:
            CloudGone: No connection, or it broke.
            CloudTimedOut: No answer within the deadline.
            CloudOverloaded: The server has no room now.
            CloudRefused: The server has no such model or version, or never takes such a request.
            CloudGarbled: The answer is not what the model gives.
        """

    def metadata(self, *, deadline_s: float) -> RemoteModel:
        """What the server has of this artifact; raises as `infer` does."""

    def segment(self, cut: str, *, deadline_s: float) -> SegmentInfo:
        """Inputs and outputs of the tail behind one cut; raises as `infer` does."""

    def is_ready(self, *, deadline_s: float, padding: int = 0) -> bool:
        """Whether the server takes requests: the smallest message there is, both ways; raises as `infer` does.

        Args:
            padding: Bytes of a field that no server reads, to see how long so many take on the way up; 60,000 at most.
        """

    def close(self) -> None:
        """End the connections."""


def wire_name(artifact: str, cut: str) -> str:
    """The model's name in the protocol: the tail behind a cut is a model of its own."""
    return artifact if cut == ALL_CLOUD else f"{artifact}@{cut}"


def cut_of(name: str) -> tuple[str, str]:
    """Artifact and cut that `wire_name` was given."""
    artifact, at, cut = name.rpartition("@")
    return (artifact, cut) if at else (name, ALL_CLOUD)


def parse_address(text: str, *, where: str) -> tuple[str, int]:
    """Host and port of "HOST:PORT"; an IPv6 address stands in brackets.

    Raises:
        BadInput: Something else; names `where`.
    """
    found = _ADDRESS.match(text)
    if found is None or int(found.group(3)) > LARGEST_PORT:
        raise BadInput(f'{where} = {text!r}: must be HOST:PORT, e.g. "127.0.0.1:8001" or "[::1]:8001".')
    return found.group(1) or found.group(2), int(found.group(3))
