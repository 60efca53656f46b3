"""One end of a split execution: loads a half and serves it, or runs requests through it and times every part.

It answers one JSON request a line, as `device_tests.worker` does; for halves that are functions it is used in the
process that measures.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from device_tests.split_frames import decode, encode, header, receive
from device_tests.worker import serve
from edge_deploy.core.clock import SystemClock
from edge_deploy.core.errors import BadInput, DeviceError

__all__ = ["Arrays", "SplitWorker", "Run"]

Arrays: TypeAlias = Mapping[str, np.ndarray]
Run: TypeAlias = Callable[[Arrays], Arrays]


class SplitWorker:
    """Answers requests about one half: load, serve, run.

    Args:
        half: The function to run; None when a request to load will bring a file.
    """

    def __init__(self, half: Run | None = None) -> None:
        self._half = half
        self._takes: tuple[str, ...] | None = None
        self._cores: list[int] = []
        self._listener: socket.socket | None = None

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """One answer, of plain JSON values.

        Raises:
            BadInput: No such request.
        """
        known: dict[str, Callable[..., dict[str, Any]]] = {"load": self._load, "serve": self._serve, "run": self._run}
        if request["do"] not in known:
            raise BadInput(f"split worker request {request['do']!r}: must be one of {', '.join(known)}.")
        return known[request["do"]](**{key: value for key, value in request.items() if key != "do"})

    def close(self) -> None:
        """Stop serving."""
        if self._listener is not None:
            # Closing alone would leave the thread in accept.
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()

    def _load(self, *, path: str | None, threads: int, cores: list[int]) -> dict[str, Any]:
        """Open the half; its threads stay on these cores."""
        self._cores = cores
        if path is not None:
            from runtimes.session import open_session

            _stay_on(cores)
            session = open_session(Path(path), threads=threads, trusted=True)
            self._takes = tuple(info.name for info in session.signature.inputs)
            self._half = session.run
            return {"takes": list(self._takes), "kernels": session.kernels}
        return {"takes": None, "kernels": "function"}

    def _serve(self) -> dict[str, Any]:
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()
        return {"port": self._listener.getsockname()[1]}

    def _accept(self, listener: socket.socket) -> None:
        _stay_on(self._cores)
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return  # closed
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                try:
                    while self._answer_one(connection):
                        pass
                except (OSError, DeviceError):
                    continue  # the edge went away, or does not speak frames; the next one may

    def _answer_one(self, connection: socket.socket) -> bool:
        frame = receive(connection)
        now_s = SystemClock().now_s
        received_s = now_s()
        if frame is None:
            return False
        try:
            assert self._half is not None
            outputs = self._half(decode(frame))
            body = encode(outputs)
            # The moment of sending goes with the answer, so it is read before the header is made: microseconds.
            head = header(outputs, received_s=received_s, sent_s=now_s())
        except Exception as error:  # noqa: BLE001  # whatever a half raises is told to the edge
            head, body = header({}, failure=f"{type(error).__name__}: {error}"), ()
        _send(connection, (head, *body))
        return True

    def _run(
        self, *, inputs: str, port: int | None, send: list[str] | None, warm_up: int, repeats: int, timeout_s: float
    ) -> dict[str, Any]:
        _stay_on(self._cores)
        with np.load(inputs, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        rows: list[list[float]] = []
        counts = [0, 0, 0, 0]
        connection = socket.create_connection(("127.0.0.1", port), timeout=timeout_s) if port is not None else None
        try:
            if connection is not None:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for number in range(warm_up + repeats):
                row, counts = self._one(arrays, connection, send)
                if number >= warm_up:
                    rows.append(row)
        except TimeoutError as error:
            raise DeviceError(f"split request: no answer within {timeout_s:g} s.") from error
        except OSError as error:
            raise DeviceError(f"split request: the connection was lost ({error}).") from error
        finally:
            if connection is not None:
                connection.close()
        return {"rows": rows, "bytes": counts}

    def _one(
        self, inputs: Arrays, connection: socket.socket | None, send: Sequence[str] | None
    ) -> tuple[list[float], list[int]]:
        """One request: seconds of total, edge, encode, uplink, cloud, downlink; bytes up, down, and with framing."""
        now_s = SystemClock().now_s
        begin_s = now_s()
        made = dict(inputs) if self._half is None else dict(self._half(self._taken(inputs)))
        ran_s = now_s()
        edge_s = ran_s - begin_s if self._half is not None else 0.0
        if connection is None:
            return [ran_s - begin_s, edge_s, 0.0, 0.0, 0.0, 0.0], [0, 0, 0, 0]
        crossing = _crossing(made, inputs, send)
        body = encode(crossing)
        pieces = (header(crossing), *body)
        encoded_s = now_s()
        _send(connection, pieces)
        frame = receive(connection)
        arrived_s = now_s()
        if frame is None or "failure" in frame.header:
            raise DeviceError(
                f"split request: the cloud half failed: {frame.header['failure'] if frame else 'it closed'}."
            )
        decode(frame)
        end_s = now_s()
        received_s, sent_s = frame.header["received_s"], frame.header["sent_s"]
        counts = [sum(map(len, body)), len(frame.body), sum(map(len, pieces)), frame.wire_bytes]
        parts = (received_s - encoded_s, sent_s - received_s, arrived_s - sent_s)
        return [end_s - begin_s, edge_s, encoded_s - ran_s, *(max(0.0, part) for part in parts)], counts

    def _taken(self, inputs: Arrays) -> Arrays:
        return inputs if self._takes is None else {name: inputs[name] for name in self._takes}


def _crossing(made: Arrays, inputs: Arrays, send: Sequence[str] | None) -> dict[str, np.ndarray]:
    """What the tail takes, from the head's outputs or else from the inputs; all outputs where it does not say."""
    if send is None:
        return dict(made)
    missing = [name for name in send if name not in made and name not in inputs]
    if missing:
        raise BadInput(
            f"split: the cloud half takes {', '.join(missing)}; the edge half makes {', '.join(made)} and the inputs "
            f"are {', '.join(inputs)}. Give the two halves of one cut."
        )
    return {name: made[name] if name in made else inputs[name] for name in send}


def _send(connection: socket.socket, pieces: Sequence[bytes]) -> None:
    for piece in pieces:
        connection.sendall(piece)


def _stay_on(cores: Sequence[int]) -> None:
    """Keep the calling thread, and those that it starts, on these cores."""
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(cores))


def main() -> None:
    """Serve on standard input and output; what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(SplitWorker(), sys.stdin, answers)


if __name__ == "__main__":
    main()
