"""Run a model split between this machine and a cloud: put a live session together from files and an address."""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from converters.splitting.choose import cut_by_id
from converters.splitting.parent import real
from edge_deploy.api.plan import PlanRequest, read_problem
from edge_deploy.api.split import split
from edge_deploy.core.clock import SystemClock
from edge_deploy.core.cut import ALL_EDGE, Cut, make_cut, tensor_bytes
from edge_deploy.core.dataset import batches, check_samples
from edge_deploy.core.errors import BadInput
from edge_deploy.core.layer_graph import LayerGraph
from edge_deploy.core.tensor import TensorInfo, encode_input
from partitioner.controller import train
from partitioner.cut_table import CutTable, build_cut_table
from partitioner.live.decide import Decide
from partitioner.live.halves import EdgeHalf, Whole, read_halves, read_whole
from partitioner.live.measure import measure_table, served
from partitioner.live.options import LiveOptions
from partitioner.live.record import Recorder, RunStart
from partitioner.live.replay import believed
from partitioner.live.session import LiveSession
from partitioner.policy import Training
from partitioner.traces.read import read_trace
from runtimes.contracts import Session
from runtimes.folder import read_artifact
from runtimes.serving.contracts import Endpoint, RemoteSegment
from runtimes.serving.errors import CloudError, CloudRefused
from runtimes.session import open_session

__all__ = ["RunRequest", "inputs_of", "live"]

LOOK_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What is to be run, with whom, and how the cut is moved.

    Attributes:
        artifact: The whole model: a folder that convert wrote, or a `.tflite` file.
        cloud: Where its tails are served (`edge-deploy serve`).
        halves: Folder that split wrote; tails may be left out of it. None: all-edge and all-cloud only.
        all_cuts: Cut at every legal prefix first, in a folder for the time of the session; `halves` is None then.
        cut: Stay at this one; empty to let the policy move it.
        policy: See `partitioner.controller.train`.
        edge, cloud_profile: Profiles of this artifact on both sides; without them halves are timed at the start.
        train: Traces that the policy learns from.
        signature: To call; None for the first.
        record: File for the record of the run; None for none.
    """

    artifact: Path | str
    cloud: Endpoint
    halves: Path | str | None = None
    all_cuts: bool = False
    cut: str = ""
    policy: str = "hysteresis"
    edge: Path | str | None = None
    cloud_profile: Path | str | None = None
    train: tuple[str, ...] = ()
    signature: str | None = None
    options: LiveOptions = field(default_factory=LiveOptions)
    record: Path | str | None = None


def live(request: RunRequest, *, progress: Callable[[str], None] = lambda stage: None) -> LiveSession:
    """A session that answers requests until it is closed; use it in a `with` block.

    Raises:
        BadInput: A file cannot be read, belongs to another model, or there is no such cut.
        CloudError: The cloud is needed at once, and does not answer.
        MissingExtra: The runtime, or gRPC, is not installed.
    """
    options = request.options
    whole = read_whole(request.artifact, signature=request.signature)
    scratch: tempfile.TemporaryDirectory[str] | None = None
    folder = None if request.halves is None else Path(request.halves)
    if request.all_cuts:
        if folder is not None:
            raise BadInput("run: --all-cuts cuts the model itself; leave --halves out, or --all-cuts.")
        scratch = tempfile.TemporaryDirectory(prefix="edge-deploy-halves-")
        folder = Path(scratch.name, "halves")
        progress(f"cut {whole.name}")
        split(request.artifact, all_cuts=True, out=folder)
    halves = read_halves(whole, folder)

    def connect() -> RemoteSegment:
        from runtimes.serving.client import RemoteClient

        boundaries = {half.cut: half.up for half in halves}
        return RemoteClient(request.cloud, artifact=whole.name, digest=whole.sha256, boundaries=boundaries)

    def open_half(half: EdgeHalf) -> Session:
        assert half.head is not None and half.signature is not None
        return open_session(half.head, signature=half.signature.name, threads=options.threads, trusted=half.crosses)

    decide: Decide | None = None
    first = request.cut or ALL_EDGE
    if not request.cut:
        table = _table(request, whole, halves, connect, open_half, progress)
        if table is not None:
            decide = Decide(train(request.policy, table, _training(request)), [half.cut for half in halves])
    if first not in {half.cut for half in halves}:
        known = ", ".join(half.cut for half in halves)
        raise BadInput(
            f"cut {first}: there is no half for it here; there are {known} (`edge-deploy split` makes more)."
        )
    start = RunStart(
        artifact=whole.name,
        sha256=whole.sha256,
        cloud=request.cloud.address,
        cuts=tuple(half.cut for half in halves),
        up_bytes=tuple(_bytes(half.up) for half in halves),
        first=first,
        codec=options.codec,
        policy=request.policy if decide is not None else f"fixed:{first}",
        switch=options.switch,
        fallback_after_s=options.setting.fallback_after_s,
        began=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        tick_s=options.setting.tick_s,
        table=believed(decide),
    )
    progress("open the session")
    session = LiveSession(
        whole,
        halves,
        connect,
        open_half,
        first=first,
        decide=decide,
        options=options,
        recorder=None if request.record is None else Recorder(request.record, start),
    )
    if scratch is not None:
        session.when_closed(scratch.cleanup)
    return session


def inputs_of(artifact: Path | str, path: Path, *, signature: str | None = None) -> Iterator[dict[str, np.ndarray]]:
    """Samples of a data set, one request after the other, as the artifact's signature takes them.

    Args:
        path: An npz, a folder of images, or a description, in the terms of the source model; for a `.tflite` file from
            elsewhere real values, or integers of exactly the type that the file takes.

    Raises:
        BadInput: The data does not fit the model.
    """
    from edge_deploy.zoo.datasets import open_dataset
    from edge_deploy.zoo.description import find_description

    whole = read_whole(artifact, signature=signature)
    is_bare = not whole.path.is_dir()
    sources = tuple(map(real, whole.signature.inputs)) if is_bare else read_artifact(whole.path).source_inputs
    dataset = open_dataset(find_description(path), inputs=sources)
    check_samples(dataset, sources)
    by_name = {info.name: info for info in sources}
    size = max(whole.signature.inputs[0].shape[0], 1)
    for batch in batches(dataset, size):
        if len(next(iter(batch.values()))) < size:
            batch = {name: array[np.arange(size).clip(max=len(array) - 1)] for name, array in batch.items()}
        yield {
            info.name: batch[info.name]
            if is_bare and batch[info.name].dtype == np.dtype(info.dtype)
            else encode_input(batch[info.name], source=by_name[info.name], target=info)
            for info in whole.signature.inputs
        }


def _table(
    request: RunRequest,
    whole: Whole,
    halves: tuple[EdgeHalf, ...],
    connect: Callable[[], RemoteSegment],
    open_half: Callable[[EdgeHalf], Session],
    progress: Callable[[str], None],
) -> CutTable | None:
    """What the policy believes: from profiles, else timed now; None where the cloud does not answer."""
    if (request.edge is None) != (request.cloud_profile is None):
        raise BadInput("run: profiles of both sides are needed, or none: --edge and --cloud-profile go together.")
    segment = connect()
    try:
        try:
            usable = served(halves, segment.metadata(deadline_s=LOOK_S).cuts)
        except CloudRefused:  # it cannot list its models; those that it has not are found out one by one
            usable = halves
        if request.edge is not None:
            return _from_profiles(request, usable)
        clock = SystemClock()
        codec = request.options.codec
        return measure_table(whole, usable, segment, open_half, codec=codec, clock=clock, progress=progress)
    except CloudError as error:
        if request.edge is not None:
            return _from_profiles(request, halves)
        progress(f"the cloud cannot be measured, all stays on the edge: {error}")
        return None
    finally:
        segment.close()


def _from_profiles(request: RunRequest, halves: tuple[EdgeHalf, ...]) -> CutTable:
    assert request.edge is not None and request.cloud_profile is not None
    codec = request.options.codec
    problem = read_problem(
        PlanRequest(artifact=request.artifact, edge=request.edge, cloud=request.cloud_profile, codec=codec)
    )
    cuts = [_cut(half, problem.graph) for half in halves]
    return build_cut_table(problem.graph, cuts, edge=problem.edge, cloud=problem.cloud, codec=codec)


def _cut(half: EdgeHalf, graph: LayerGraph) -> Cut:
    """The cut of a half: a prefix by its id, another one by the layers that its head has."""
    try:
        return cut_by_id(graph, half.cut)
    except BadInput:
        if half.head is None:
            raise
        mine = {layer.name for layer in read_artifact(half.head).graph.layers}
        found = make_cut(graph, [layer.name for layer in graph.layers if layer.name in mine])
        if found.id != half.cut:
            raise
        return found


def _training(request: RunRequest) -> Training:
    traces = tuple(read_trace(each) for each in request.train)
    return Training(traces=traces, setting=request.options.setting)


def _bytes(infos: tuple[TensorInfo, ...]) -> int:
    return sum(tensor_bytes(replace(info, shape=tuple(abs(size) for size in info.shape))) for info in infos)
