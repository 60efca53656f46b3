"""What a server takes at most of anything that comes from outside."""

from __future__ import annotations

from dataclasses import dataclass, fields

from edge_deploy.core.errors import BadInput

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one server process; what exceeds one is refused, and everybody else goes on being served.

    Attributes:
        message_bytes: Of one request; None for what the largest model takes (many rows: 4 MiB) and 64 KiB.
        tensors: Of one request.
        rows: Samples of one request, where the model takes several.
        at_once: Requests that the process holds, in whatever state, health checks included; half of them may be open
            streams of requests.
        held_bytes: Of all requests that the process holds; more are told that the server is overloaded.
        connections: Open ones.
        receive_s: From the first header of a request to its last byte; a stream of requests is ended when no whole one
            came for so long.
        answer_s: From the last byte to the answer; a client's own deadline counts where it is shorter.
        handshake_s: From accepting a connection to the end of its handshakes.
        silent_s: A connection from which nothing has come for so long is asked whether it is there, and closed when as
            much time again brings no answer.
        idle_s: A connection without requests is closed after so long.
        drain_s: Requests under way have so long to end once the server was told to stop.
    """

    message_bytes: int | None = None
    tensors: int = 64
    rows: int = 1024
    at_once: int = 4096
    held_bytes: int = 512 * 1024 * 1024
    connections: int = 4096
    receive_s: float = 10.0
    answer_s: float = 60.0
    handshake_s: float = 10.0
    silent_s: float = 20.0
    idle_s: float = 900.0
    drain_s: float = 10.0

    def __post_init__(self) -> None:
        problems = [
            f"limits: {each.name} = {value}: must be above 0."
            for each in fields(self)
            if (value := getattr(self, each.name)) is not None and not value > 0
        ]
        if problems:
            raise BadInput(*problems)
