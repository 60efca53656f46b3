"""Measure real split execution: an edge half, a shaped loopback link and a cloud half, request by request."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeAlias

import numpy as np

from device_tests.contention import cpu_load, usable_cores
from device_tests.split_measurement import PARTS, SplitMeasurement
from device_tests.split_worker import SplitWorker
from device_tests.transports.local import LocalTransport
from edge_deploy.core.errors import BadInput
from runtimes.shaping.link import ShapedLink, constant_link
from runtimes.shaping.proxy import ShapedProxy

__all__ = ["Arrays", "Half", "SplitRig", "measure_split"]

Arrays: TypeAlias = Mapping[str, np.ndarray]
Half: TypeAlias = Callable[[Arrays], Arrays] | Path | None
LOAD_TIMEOUT_S = 600.0


def measure_split(
    head: Half,
    tail: Half,
    inputs: Arrays,
    *,
    uplink_bps: float,
    downlink_bps: float,
    rtt_s: float,
    edge_load: float = 0.0,
    cloud_load: float = 0.0,
    repeats: int = 5,
    warm_up: int = 2,
    threads: int = 1,
    timeout_s: float = 300.0,
) -> SplitMeasurement:
    """Run requests through both halves over a link with these rates and this delay.

    For many conditions of one cut use `SplitRig`, which loads the halves once.

    Args:
        head: The edge half: an artifact folder or model file (runs in a process of its own), or a function from arrays
            by name to arrays by name (runs in a thread of this process). None: everything runs in the cloud.
        tail: The cloud half, alike. None: everything runs on the edge and nothing crosses.
        inputs: One request, arrays by the model's input names, batch dimension included. Those that the head does not
            take and the tail does are sent with the head's outputs.
        uplink_bps: Bits per second from edge to cloud.
        downlink_bps: Bits per second back.
        rtt_s: Round-trip time; half of it is paid in each direction.
        edge_load: Share of the edge's CPU that a load of ours takes meanwhile, 0 to 1. Edge and cloud have different
            cores where the machine has two, so that a load on one leaves the other alone.
        cloud_load: The same in the cloud.
        repeats: Requests that count.
        warm_up: Requests before them.
        threads: Of each half's runtime.
        timeout_s: For one answer of the cloud.

    Raises:
        BadInput: An option is out of range, or the tail takes a tensor that neither the head nor the inputs have.
        DeviceError: A half's process died or gave no answer in time.
    """
    with SplitRig(head, tail, threads=threads) as rig:
        return rig.measure(
            inputs,
            uplink_bps=uplink_bps,
            downlink_bps=downlink_bps,
            rtt_s=rtt_s,
            edge_load=edge_load,
            cloud_load=cloud_load,
            repeats=repeats,
            warm_up=warm_up,
            timeout_s=timeout_s,
        )


class SplitRig:
    """Both halves of one cut, loaded, with the proxy between them; use it in a `with` block.

    Args:
        head: See `measure_split`.
        tail: See `measure_split`.
        threads: Of each half's runtime.

    Raises:
        BadInput: Neither half is given, or one cannot be opened.
        DeviceError: A half's process died while it loaded.
    """

    def __init__(self, head: Half, tail: Half, *, threads: int = 1) -> None:
        if head is None and tail is None:
            raise BadInput("split: neither an edge nor a cloud half is given.")
        if threads < 1:
            raise BadInput(f"threads = {threads}: must be at least 1.")
        cores = usable_cores()
        half = len(cores) // 2
        self._edge_cores, self._cloud_cores = (cores[:half], cores[half:]) if half else (cores, cores)
        self._notes = () if half else ("edge and cloud shared one core",)
        self._stack = ExitStack()
        try:
            self._edge = self._open(head)
            self._edge.ask(self._load(head, threads, self._edge_cores), timeout_s=LOAD_TIMEOUT_S)
            self._send: list[str] | None = None
            self._proxy: ShapedProxy | None = None
            if tail is not None:
                cloud = self._open(tail)
                loaded = cloud.ask(self._load(tail, threads, self._cloud_cores), timeout_s=LOAD_TIMEOUT_S)
                self._send = loaded["takes"]
                port = cloud.ask({"do": "serve"}, timeout_s=LOAD_TIMEOUT_S)["port"]
                fast = constant_link(uplink_bps=1e9, downlink_bps=1e9, rtt_s=0.0)
                self._proxy = self._stack.enter_context(
                    # With the cloud, which waits while bytes are on their way, and not with the edge and its load.
                    ShapedProxy(("127.0.0.1", port), fast, cores=self._cloud_cores)
                )
        except BaseException:
            self._stack.close()
            raise

    def measure(
        self,
        inputs: Arrays,
        *,
        uplink_bps: float,
        downlink_bps: float,
        rtt_s: float,
        edge_load: float = 0.0,
        cloud_load: float = 0.0,
        repeats: int = 5,
        warm_up: int = 2,
        timeout_s: float = 300.0,
    ) -> SplitMeasurement:
        """Requests under one condition; see `measure_split`."""
        link = constant_link(uplink_bps=uplink_bps, downlink_bps=downlink_bps, rtt_s=rtt_s)
        if self._proxy is not None and (uplink_bps == 0 or downlink_bps == 0):
            raise BadInput("split: a rate is 0, so no request would ever end; give rates above 0.")
        return self.measure_over(
            link,
            inputs,
            edge_load=edge_load,
            cloud_load=cloud_load,
            repeats=repeats,
            warm_up=warm_up,
            timeout_s=timeout_s,
        )

    def measure_over(
        self,
        link: ShapedLink,
        inputs: Arrays,
        *,
        edge_load: float = 0.0,
        cloud_load: float = 0.0,
        repeats: int = 5,
        warm_up: int = 2,
        timeout_s: float = 300.0,
    ) -> SplitMeasurement:
        """Requests over any link, one that changes too: its time begins with the warm-up."""
        if repeats < 1 or warm_up < 0:
            raise BadInput(f"split: repeats = {repeats}, warm_up = {warm_up}: must be at least 1 and at least 0.")
        with ExitStack() as stack:
            file = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edge-deploy-split-")), "inputs.npz")
            np.savez(file, **dict(inputs))  # type: ignore[arg-type]  # arrays
            loads = [
                stack.enter_context(cpu_load(edge_load, cores=self._edge_cores)),
                stack.enter_context(cpu_load(cloud_load, cores=self._cloud_cores)),
            ]
            if self._proxy is not None:
                self._proxy.follow(link)
            request = {
                "do": "run",
                "inputs": str(file),
                "port": self._proxy.address[1] if self._proxy is not None else None,
                "send": self._send,
                "warm_up": warm_up,
                "repeats": repeats,
                "timeout_s": timeout_s,
            }
            answer = self._edge.ask(request, timeout_s=(warm_up + repeats) * timeout_s)
        columns = dict(zip(PARTS, (tuple(column) for column in zip(*answer["rows"], strict=True)), strict=True))
        up, down, wire_up, wire_down = answer["bytes"]
        load_notes = tuple(f"load by {how}" for how in dict.fromkeys(loads) if how != "none")
        return SplitMeasurement(
            **columns,
            up_bytes=up,
            down_bytes=down,
            wire_up_bytes=wire_up,
            wire_down_bytes=wire_down,
            notes=(*self._notes, *load_notes),
        )

    def close(self) -> None:
        """End both halves and the proxy; safe to call twice."""
        self._stack.close()

    def __enter__(self) -> SplitRig:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, half: Half) -> _End:
        if isinstance(half, Path):
            transport = LocalTransport()
            self._stack.callback(transport.close)
            channel = transport.run("device_tests.split_worker", environment={"TF_CPP_MIN_LOG_LEVEL": "3"})
            self._stack.callback(channel.close)
            return channel
        worker = SplitWorker(half)
        self._stack.callback(worker.close)
        return _Here(worker)

    @staticmethod
    def _load(half: Half, threads: int, cores: tuple[int, ...]) -> dict[str, Any]:
        path = str(half.resolve()) if isinstance(half, Path) else None
        return {"do": "load", "path": path, "threads": threads, "cores": list(cores)}


class _End(Protocol):
    def ask(self, request: Mapping[str, Any], *, timeout_s: float) -> Any: ...


class _Here:
    """A worker in this process; requests run in a thread of their own, because that one is kept on its cores."""

    def __init__(self, worker: SplitWorker) -> None:
        self._worker = worker

    def ask(self, request: Mapping[str, Any], *, timeout_s: float) -> Any:
        """As `device_tests.contracts.Channel.ask`; functions are not interrupted after the timeout."""
        found: list[Any] = []
        failed: list[BaseException] = []

        def work() -> None:
            try:
                found.append(self._worker.answer(request))
            except BaseException as error:  # noqa: BLE001  # raised again in the calling thread
                failed.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join()
        if failed:
            raise failed[0]
        return found[0]
