"""What the live benches share: a model that is cut everywhere, its answers, and a server that can be killed."""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_deploy.api.split import split
from edge_deploy.bench.models import development_data
from edge_deploy.core.errors import DeviceError
from edge_deploy.core.serde import dumps
from partitioner.live.halves import EdgeHalf, Whole, read_halves, read_whole
from runtimes.contracts import Session
from runtimes.serving.client import RemoteClient
from runtimes.serving.contracts import Endpoint, RemoteSegment
from runtimes.serving.server import Serving
from runtimes.session import open_session

__all__ = ["HOME", "MODEL", "Rig", "ServerProcess", "make_rig"]

HOME = Path("build/bench-live")
MODEL = "models/mlperf_tiny_ic_resnet8/pretrainedResnet_quant.tflite"
START_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rig:
    """A model and its halves.

    Attributes:
        feeds: Inputs; `answers`: the whole model's outputs for them, bit by bit.
    """

    whole: Whole
    halves: tuple[EdgeHalf, ...]
    folder: Path
    feeds: tuple[dict[str, np.ndarray], ...]
    answers: tuple[dict[str, np.ndarray], ...]

    def open_half(self, half: EdgeHalf) -> Session:
        """As `edge-deploy run` opens one."""
        assert half.head is not None and half.signature is not None
        return open_session(half.head, signature=half.signature.name, trusted=True)

    def connect_to(self, address: tuple[str, int]) -> Callable[[], RemoteSegment]:
        """What a session makes its connections with."""
        endpoint = Endpoint(host=address[0], port=address[1])
        return lambda: RemoteClient(endpoint, artifact=self.whole.name, digest=self.whole.sha256)

    def is_right(self, number: int, found: dict[str, np.ndarray]) -> bool:
        """Whether these are the outputs of that input, bit by bit."""
        wanted = self.answers[number % len(self.answers)]
        return all(np.array_equal(found[name], wanted[name]) for name in wanted)

    def feed(self, number: int) -> dict[str, np.ndarray]:
        """One of the inputs."""
        return self.feeds[number % len(self.feeds)]


def make_rig(model: str = MODEL, *, feeds: int = 64) -> Rig:
    """The model of EDGE_DEPLOY_DATA, cut at every legal prefix; inputs are random."""
    path = development_data() / model
    folder = HOME / "halves" / path.stem
    if not folder.is_dir():
        split(path, all_cuts=True, out=folder)
    whole = read_whole(path)
    rng = np.random.default_rng(0)
    made = []
    for _ in range(feeds):
        feed = {}
        for info in whole.signature.inputs:
            kind = np.dtype(info.dtype)
            shape = [max(size, 1) for size in info.shape]
            if kind.kind in "iu":
                drawn = rng.integers(np.iinfo(kind).min, np.iinfo(kind).max, shape, kind, endpoint=True)
            else:
                drawn = rng.random(shape).astype(kind)
            feed[info.name] = drawn
        made.append(feed)
    session = open_session(whole.path, trusted=True)
    answers = tuple(session.run(feed) for feed in made)
    session.close()
    return Rig(whole=whole, halves=read_halves(whole, folder), folder=folder, feeds=tuple(made), answers=answers)


class ServerProcess:
    """A server in a process of its own, on a port that stays when it is killed and started again."""

    def __init__(self, folder: Path, *, port: int = 0) -> None:
        self.port = port
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None
        self.start()

    def start(self) -> None:
        """Start it; returns when it listens.

        Raises:
            DeviceError: It does not.
        """
        until = time.monotonic() + START_S
        while True:
            serving = Serving(artifacts=(self._folder,), port=self.port, warm=True)
            process = subprocess.Popen(
                [sys.executable, "-m", "runtimes.serving.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(dumps(serving).replace("\n", " ") + "\n")
            process.stdin.flush()
            ready, _, _ = select.select([process.stdout], [], [], max(until - time.monotonic(), 0))
            said = json.loads(process.stdout.readline() or "{}") if ready else {}
            if "port" in said:
                self._process, self.port = process, said["port"]
                return
            process.kill()
            process.wait()
            if time.monotonic() > until:
                raise DeviceError(f"bench: the server does not start: {said}")
            time.sleep(0.2)

    def kill(self) -> None:
        """End it at once, without a word to anybody."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):
                    assert stream is not None
                    stream.close()
            self._process = None

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *ended: object) -> None:
        self.kill()
