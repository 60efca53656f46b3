"""`make bench-peers`: tritonclient gets answers from our server, our client gets them from MLServer.

Both live in environments of their own, because their pins differ from ours; they are made once, under
build/bench-peers, and need a package index. `peers_test.py` runs the same where they are there.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edge_deploy.api.run import RunRequest, live
from edge_deploy.bench.live_server import cut_model, feed, running_server, small_model
from edge_deploy.core.cut import ALL_CLOUD
from edge_deploy.core.errors import DeviceError
from runtimes.contracts import Session
from runtimes.serving.client import RemoteClient
from runtimes.serving.contracts import Endpoint, SegmentInfo, cut_of, wire_name
from runtimes.serving.errors import CloudError, CloudRefused
from runtimes.serving.offers import find_offers
from runtimes.serving.repository import export_repository
from runtimes.session import open_session

__all__ = ["ask_mlserver", "ask_with_tritonclient", "environment", "make_environment"]

CHECKOUT = Path(__file__).resolve().parents[2]
HOME = CHECKOUT / "build" / "bench-peers"
# MLServer 1.7 does not start its workers with uvloop 0.22.
PEERS = {"tritonclient": ("tritonclient[grpc]",), "mlserver": ("mlserver", "uvloop<0.22")}
ROWS = (1, 2, 5)
LIVE_REQUESTS = 50
START_S, DEADLINE_S = 120.0, 60.0

ASK = """
import json, sys
import numpy as np
import tritonclient.grpc as triton

address, model, version, folder = sys.argv[1:]
client = triton.InferenceServerClient(address)
said = {
    "live": client.is_server_live(),
    "ready": client.is_server_ready(),
    "model_ready": client.is_model_ready(model, version),
    "versions": list(client.get_model_metadata(model).versions),
    "models": sorted(entry.name for entry in client.get_model_repository_index().models),
    "differing": [],
}
for case in json.load(open(folder + "/cases.json")):
    inputs = []
    for name, file in case["inputs"].items():
        array = np.load(folder + "/" + file)
        inputs.append(triton.InferInput(name, list(array.shape), triton.np_to_triton_dtype(array.dtype)))
        inputs[-1].set_data_from_numpy(array)
    answer = client.infer(model, inputs, model_version=version, request_id="7")
    for name, file in case["outputs"].items():
        if not np.array_equal(answer.as_numpy(name), np.load(folder + "/" + file)):
            said["differing"].append(name)
try:
    client.infer(model + "x", inputs)
    said["unknown_model"] = "answered"
except triton.InferenceServerException as error:
    said["unknown_model"] = error.status()
print(json.dumps(said))
"""


def environment(name: str) -> Path | None:
    """Python of a peer's environment; None where `make bench-peers` has not made it."""
    python = HOME / name / "bin" / "python"
    return python if python.exists() and (HOME / name / "complete").exists() else None


def make_environment(name: str) -> Path:
    """Python of a peer's environment, made first where it is not there.

    Raises:
        DeviceError: pip cannot install the peer.
    """
    found = environment(name)
    if found is not None:
        return found
    venv.create(HOME / name, with_pip=True, clear=True)
    python = HOME / name / "bin" / "python"
    runtime = f"ai-edge-litert=={importlib.metadata.version('ai-edge-litert')}"
    wanted = [*PEERS[name], *([runtime] if name == "mlserver" else [])]
    done = subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], capture_output=True, text=True)
    if done.returncode:
        raise DeviceError(f"bench-peers: {name} cannot be installed: {done.stderr.strip()[-500:]}")
    (HOME / name / "complete").touch()
    return python


def ask_with_tritonclient(python: Path, halves: Path, cut: str) -> dict[str, Any]:
    """What tritonclient saw of our server; `differing` outputs are those that are not a local session's."""
    with running_server([halves]) as server, tempfile.TemporaryDirectory() as scratch:
        artifact = server.names[0].partition("@")[0]
        name = wire_name(artifact, cut)
        version = _version(halves, name)
        _write_cases(halves / cut / "tail", Path(scratch))
        done = subprocess.run(
            [python, "-c", ASK, server.endpoint.address, name, version, scratch],
            capture_output=True,
            text=True,
            timeout=START_S,
        )
        if done.returncode:
            raise DeviceError(f"bench-peers: tritonclient failed: {done.stderr.strip()[-1000:]}")
        said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return {**said, "client": _version_in(python, "tritonclient"), "right_version": said["versions"] == [version]}


def ask_mlserver(python: Path, halves: Path, cut: str, *, model: Path | None = None) -> dict[str, Any]:
    """What our client saw of MLServer with our runtime class, for the whole model and the tail behind one cut.

    Args:
        model: What was cut; its edge half then answers requests with MLServer as its cloud.
    """
    with tempfile.TemporaryDirectory() as scratch:
        repository = Path(scratch) / "repository"
        wanted = [halves / each for each in (ALL_CLOUD, cut)]
        offers = export_repository(wanted, repository, layout="mlserver")
        artifact, version = cut_of(offers[0].info.name)[0], offers[0].info.version
        with _mlserver(python, repository, Path(scratch) / "log") as endpoint:
            with RemoteClient(endpoint, artifact=artifact, digest=version) as client:
                _until_ready(client, Path(scratch) / "log", cut)
                said = _ask(client, halves, cut)
                said["cuts"] = sorted(client.metadata(deadline_s=DEADLINE_S).cuts)
            if model is not None:
                said["edge_half"] = _edge_half(endpoint, model, halves, cut)
            with RemoteClient(endpoint, artifact=artifact, digest="00" * 32) as stranger:
                with contextlib.suppress(CloudRefused):
                    stranger.infer({}, deadline_s=DEADLINE_S, cut=cut)
                    said["wrong_digest"] = "answered"
                said.setdefault("wrong_digest", "refused")
        return {**said, "server": _version_in(python, "mlserver")}


def _ask(client: RemoteClient, halves: Path, cut: str) -> dict[str, Any]:
    differing, answers, seconds = [], 0, []
    for each in (ALL_CLOUD, cut):
        session = open_session(halves / each / "tail")
        segment = client.segment(each, deadline_s=DEADLINE_S)
        for rows in ROWS:
            arrays = feed(segment, rows=rows, seed=rows)
            begun = time.perf_counter()
            found = client.infer(arrays, deadline_s=DEADLINE_S, cut=each, request_id=f"{each}-{rows}")
            seconds.append(time.perf_counter() - begun)
            right = _alone(session, arrays)
            answers += 1
            differing += [name for name, array in right.items() if not np.array_equal(found[name], array)]
        session.close()
    return {"answers": answers, "differing": differing, "median_ms": round(float(np.median(seconds)) * 1e3, 1)}


def _edge_half(endpoint: Endpoint, model: Path, halves: Path, cut: str) -> dict[str, Any]:
    """Requests through `edge-deploy run`'s session at one cut, compared with the whole model here."""
    whole = open_session(model, trusted=True)
    info = SegmentInfo(name="", version="", inputs=whole.signature.inputs, outputs=whole.signature.outputs)
    with live(RunRequest(artifact=model, cloud=endpoint, halves=halves, cut=cut)) as session:
        differing = 0
        for seed in range(LIVE_REQUESTS):
            arrays = feed(info, seed=seed)
            found, right = session.infer(arrays), whole.run(arrays)
            differing += any(not np.array_equal(found[name], array) for name, array in right.items())
    return {"requests": LIVE_REQUESTS, "differing": differing, "answered": session.status.answered}


def _alone(session: Session, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a session in this process gives, row by row where it takes one at a time."""
    rows = len(next(iter(arrays.values())))
    if session.signature.inputs[0].shape[0] != 1:
        return session.run(arrays)
    each = [session.run({name: array[n : n + 1] for name, array in arrays.items()}) for n in range(rows)]
    return {name: np.concatenate([one[name] for one in each]) for name in each[0]}


def _write_cases(tail: Path, folder: Path) -> None:
    session = open_session(tail)
    cases = []
    for rows in ROWS if session.signature.inputs[0].shape[0] < 0 else (1,):
        info = SegmentInfo(name="", version="", inputs=session.signature.inputs, outputs=session.signature.outputs)
        arrays = feed(info, rows=rows, seed=rows)
        case: dict[str, dict[str, str]] = {"inputs": {}, "outputs": {}}
        for kind, some in (("inputs", arrays), ("outputs", session.run(arrays))):
            for name, array in some.items():
                file = f"{kind}-{rows}-{len(case[kind])}.npy"
                np.save(folder / file, array)
                case[kind][name] = file
        cases.append(case)
    (folder / "cases.json").write_text(json.dumps(cases), encoding="utf-8")


@contextmanager
def _mlserver(python: Path, repository: Path, log: Path) -> Iterator[Endpoint]:
    ports = _free_ports(3)
    names = ("MLSERVER_GRPC_PORT", "MLSERVER_HTTP_PORT", "MLSERVER_METRICS_PORT")
    given = {**os.environ, **dict(zip(names, map(str, ports), strict=True)), "PYTHONPATH": str(CHECKOUT)}
    with log.open("wb") as file:
        process = subprocess.Popen(
            [python.parent / "mlserver", "start", repository],
            env=given,
            stdout=file,
            stderr=file,
            cwd=repository,
            start_new_session=True,
        )
        try:
            yield Endpoint(host="127.0.0.1", port=ports[0])
        finally:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _until_ready(client: RemoteClient, log: Path, cut: str) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        with contextlib.suppress(CloudError):
            if client.is_ready(deadline_s=5.0) and cut in client.metadata(deadline_s=5.0).cuts:
                return
        time.sleep(0.3)
    raise DeviceError(f"bench-peers: MLServer did not become ready: {log.read_text(errors='replace')[-1500:]}")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def _version(halves: Path, name: str) -> str:
    return next(offer.info.version for offer in find_offers([halves]) if offer.info.name == name)


def _version_in(python: Path, package: str) -> str:
    ask = f"import importlib.metadata as m; print(m.version({package!r}))"
    version = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip()
    return f"{package} {version}"


def main() -> None:
    """Print what each peer saw."""
    model = Path(sys.argv[1]) if len(sys.argv) > 1 else small_model()
    folder, halves, cut = cut_model(model)
    with folder:
        print(json.dumps(ask_with_tritonclient(make_environment("tritonclient"), halves, cut), indent=1))
        print(json.dumps(ask_mlserver(make_environment("mlserver"), halves, cut, model=model), indent=1))


if __name__ == "__main__":
    main()
