"""An artifact opened on a device, called like a session on this machine; many calls at once cost one round trip."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from device_tests.benchmark import LOAD_TIMEOUT_S, RUN_TIMEOUT_S, Turn, ask
from device_tests.benchmark_subject import check_fit, read_subject
from device_tests.contracts import Transport
from device_tests.device_list import connect, find_device
from device_tests.native_channel import NativeChannel
from device_tests.reference import signature_of
from edge_deploy.core.artifact import Signature
from edge_deploy.core.serde import to_json

__all__ = ["DeviceSession", "open_on_device"]

MOST_BYTES_AT_ONCE = 64_000_000


class DeviceSession:
    """See `runtimes.contracts.Session`; `run_many` is the way to run more than one."""

    def __init__(self, transport: Transport, turn: Turn, signature: Signature, kernels: str) -> None:
        self.signature = signature
        self.kernels = kernels
        self._transport = transport
        self._turn = turn
        self._count = 0

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One inference on the device."""
        return self.run_many([inputs])[0]

    def run_many(self, batches: Sequence[Mapping[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
        """An inference for each set of inputs, in as few transfers as memory allows.

        Raises:
            BadInput: An input is missing, unknown or of another shape or type.
            DeviceError: The device is gone, or its storage is full.
        """
        size = sum(array.nbytes for array in batches[0].values()) if batches else 1
        step = max(1, MOST_BYTES_AT_ONCE // max(size, 1))
        found: list[dict[str, np.ndarray]] = []
        for start in range(0, len(batches), step):
            found += self._some([dict(each) for each in batches[start : start + step]])
        return found

    def layer_seconds(self, inputs: Mapping[str, np.ndarray], *, runs: int) -> dict[str, float] | None:
        """None: nothing profiles on a device."""
        return None

    def close(self) -> None:
        """Nothing: what `open_on_device` opened, it closes."""

    def _some(self, batches: list[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
        channel = self._turn.channel
        if isinstance(channel, NativeChannel):  # which takes arrays as they are
            return channel.outputs(batches, timeout_s=RUN_TIMEOUT_S)
        self._count += 1
        given, answered = f"session/{self._count}-in.npz", f"session/{self._count}-out.npz"
        with tempfile.TemporaryDirectory(prefix="edge-deploy-session-") as folder:
            file = Path(folder, "in.npz")
            stacked = {info.name: np.stack([each[info.name] for each in batches]) for info in self.signature.inputs}
            with file.open("wb") as opened:
                np.savez(opened, **stacked)  # type: ignore[arg-type]  # names of the signature
            path = self._transport.push(file, given)
            there = path.removesuffix(given) + answered
            ask(self._turn, {"do": "infer", "inputs": path, "outputs": there}, timeout_s=RUN_TIMEOUT_S)
            self._transport.pull(answered, Path(folder, "out.npz"))
            with np.load(Path(folder, "out.npz"), allow_pickle=False) as archive:
                arrays = {info.name: archive[info.name] for info in self.signature.outputs}
        return [{name: array[number] for name, array in arrays.items()} for number in range(len(batches))]


@contextmanager
def open_on_device(
    path: Path,
    *,
    device: str,
    signature: str | None = None,
    threads: int = 1,
    kernels: str = "default",
    batch: int = 1,
) -> Iterator[DeviceSession]:
    """Push an artifact to a device and load it there; everything is removed when the block ends.

    Args:
        path: An artifact's folder, or a model file.
        device: As `--device` takes it.
        batch: Samples at once, where the signature leaves it open.

    Raises:
        BadInput: No such file, signature or device, or it does not fit.
        DeviceError: The device cannot be reached, or its storage is full.
        Unsupported: Nothing on the device runs it.
    """
    subject = read_subject(path)
    chosen = signature_of(subject, signature)
    where = find_device(device)
    check_fit([subject], where)
    with closing(connect(where)) as transport:
        pushed = [transport.push(file, f"0/{name}", sha256=digest) for file, name, digest in subject.files]
        environment = {"OMP_NUM_THREADS": str(threads), "TF_CPP_MIN_LOG_LEVEL": "3"}
        with closing(transport.run("device_tests.worker", environment=environment)) as channel:
            there = str(Path(pushed[0]).parent) if subject.is_folder else pushed[0]
            turn = Turn(subject=subject, channel=channel, path=there)
            load = {
                "do": "load",
                "path": there,
                "backend": None,
                "signature": chosen.name,
                "threads": threads,
                "kernels": kernels,
                "seed": 0,
                "inputs": None,
                "source": to_json(subject.source),
                **({"batch": batch} if isinstance(channel, NativeChannel) else {}),
            }
            loaded = ask(turn, load, timeout_s=LOAD_TIMEOUT_S)
            yield DeviceSession(transport, turn, chosen, loaded["kernels"])
