"""A server in processes of its own, for the benches of serving: started, measured from outside, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_deploy.core.cut import ALL_CLOUD
from edge_deploy.core.errors import BadInput
from runtimes.serving.async_client import AsyncRemoteClient
from runtimes.serving.contracts import Endpoint, SegmentInfo

__all__ = ["BenchServer", "cut_model", "feed", "running_server", "segment_of", "small_model"]

START_S, STOP_S = 120.0, 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchServer:
    """A running `edge-deploy serve`.

    Attributes:
        process: The parent of the workers.
        names: Of the models on the wire.
    """

    endpoint: Endpoint
    process: subprocess.Popen[str]
    names: tuple[str, ...]

    def resident_bytes(self) -> int:
        """Of all its processes, files that are mapped included."""
        pids = [self.process.pid, *_children(self.process.pid)]
        return sum(_resident(pid) for pid in pids)

    def worker_ids(self) -> tuple[int, ...]:
        """Processes that serve; another set of them means that one died."""
        return tuple(_children(self.process.pid))


@contextmanager
def running_server(artifacts: Sequence[Path], *options: str) -> Iterator[BenchServer]:
    """Serve on a free port of the loopback until the block ends."""
    command = [sys.executable, "-m", "edge_deploy.cli.main", "serve", *map(str, artifacts)]
    process = subprocess.Popen(
        [*command, "--listen", "127.0.0.1:0", "--json", *options], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        text = ""
        while not text.endswith("}\n") or not _is_json(text):
            line = process.stdout.readline()
            if not line:
                raise SystemExit(f"the server did not start: {text}")
            text += line
        said = json.loads(text)
        host, _, port = said["address"].rpartition(":")
        names = tuple(model["name"] for model in said["models"])
        yield BenchServer(endpoint=Endpoint(host=host, port=int(port)), process=process, names=names)
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
        process.kill()


def small_model() -> Path:
    """The model of the benches: a ResNet-8 in INT8.

    Raises:
        BadInput: There is no development data.
    """
    model = Path(os.environ.get("EDGE_DEPLOY_DATA", "")) / "models/mlperf_tiny_ic_resnet8/pretrainedResnet_quant.tflite"
    if not model.is_file():
        raise BadInput(f"{model}: no such file; set EDGE_DEPLOY_DATA, or name a .tflite file.")
    return model


def cut_model(model: Path) -> tuple[tempfile.TemporaryDirectory[str], Path, str]:
    """Halves of a model at a cut in its middle, and the cut's id."""
    from edge_deploy.api.split import split

    folder = tempfile.TemporaryDirectory(prefix="edge-deploy-bench-")
    out = Path(folder.name) / "halves"
    result = split(model, cuts=(ALL_CLOUD,), all_cuts=True, out=out, check=False)
    inner = [each.cut.id for each in result.cuts if each.head is not None and each.tail is not None]
    return folder, out, inner[len(inner) // 2]


def feed(segment: SegmentInfo, *, rows: int = 1, seed: int = 0) -> dict[str, np.ndarray]:
    """Random inputs of a segment."""
    rng = np.random.default_rng(seed)
    made = {}
    for info in segment.inputs:
        shape = [rows if size < 0 else size for size in info.shape]
        kind = np.dtype(info.dtype)
        if kind.kind == "f":
            made[info.name] = rng.normal(size=shape).astype(kind)
        else:
            high = 2 if kind.kind == "b" or kind.itemsize > 1 else np.iinfo(kind).max
            made[info.name] = rng.integers(0, high, shape).astype(kind)
    return made


def segment_of(endpoint: Endpoint, artifact: str, cut: str) -> SegmentInfo:
    """What the server says of a segment."""

    async def ask() -> SegmentInfo:
        async with AsyncRemoteClient(endpoint, artifact=artifact) as client:
            return await client.segment(cut, deadline_s=START_S)

    return asyncio.run(ask())


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    return []


def _resident(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError):
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return 0
