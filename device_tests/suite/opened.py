"""One artifact, pushed to a device and loaded there, for tests that ask it one thing after the other."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from device_tests.benchmark_subject import Subject, check_fit, read_subject
from device_tests.benchmark_turn import LOAD_TIMEOUT_S, RUN_TIMEOUT_S, Turn, ask
from device_tests.contracts import Transport
from device_tests.device_list import connect, find_device
from device_tests.tasks.models import TaskModelFile, describe_model
from edge_deploy.core.artifact import MANIFEST
from edge_deploy.core.device import Device
from edge_deploy.core.errors import BadInput
from edge_deploy.core.serde import to_json

__all__ = ["Opened", "artifacts_below", "open_on_device"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A loaded artifact.

    Attributes:
        loaded: The worker's answer to `load`.
    """

    model: TaskModelFile
    subject: Subject
    device: Device
    transport: Transport
    turn: Turn
    loaded: Mapping[str, Any]

    def infer(self, inputs: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], Mapping[str, Any]]:
        """Outputs [samples, *shape] by name, and what the device told of the run.

        Args:
            inputs: [samples, *shape] by name, in the signature's own types.

        Raises:
            DeviceError: The device failed or vanished.
        """
        with tempfile.TemporaryDirectory(prefix="edge-deploy-suite-") as scratch:
            given, got = Path(scratch, "in.npz"), Path(scratch, "out.npz")
            with given.open("wb") as file:
                np.savez(file, **inputs)  # type: ignore[arg-type]  # names of inputs
            there = self.transport.push(given, "suite/in.npz")
            beside = there.removesuffix("in.npz") + "out.npz"
            told = ask(self.turn, {"do": "infer", "inputs": there, "outputs": beside}, timeout_s=RUN_TIMEOUT_S)
            self.transport.pull("suite/out.npz", got)
            with np.load(got, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}, told

    def state(self) -> Mapping[str, Any]:
        """Memory and load as the device tells them."""
        told: Mapping[str, Any] = ask(self.turn, {"do": "state"}, timeout_s=RUN_TIMEOUT_S)
        return told


@contextmanager
def open_on_device(path: Path, device: str, *, backend: str | None = None, threads: int = 1) -> Iterator[Opened]:
    """Push the artifact, start a worker, load; all of it is gone afterwards.

    Raises:
        BadInput: No such artifact or device.
        DeviceError: It does not fit, or the device does not answer.
    """
    where = find_device(device)
    model, subject = describe_model(path), read_subject(path)
    check_fit([subject], where)
    with ExitStack() as stack:
        transport = connect(where)
        stack.callback(transport.close)
        pushed = [transport.push(file, f"0/{name}", sha256=digest) for file, name, digest in subject.files]
        environment = {"OMP_NUM_THREADS": str(threads), "TF_CPP_MIN_LOG_LEVEL": "3"}
        channel = stack.enter_context(closing(transport.run("device_tests.worker", environment=environment)))
        place = str(Path(pushed[0]).parent) if subject.is_folder else pushed[0]
        turn = Turn(subject=subject, channel=channel, path=place)
        request = {
            "do": "load",
            "path": place,
            "backend": backend,
            "signature": model.signature.name,
            "threads": threads,
            "kernels": "default",
            "seed": 0,
            "inputs": None,
            "source": to_json(subject.source),
        }
        loaded = ask(turn, request, timeout_s=LOAD_TIMEOUT_S)
        yield Opened(model=model, subject=subject, device=where, transport=transport, turn=turn, loaded=loaded)


def artifacts_below(path: Path) -> tuple[Path, ...]:
    """The artifact or model file itself, or the artifacts that a folder holds.

    Raises:
        BadInput: Nothing is there.
    """
    if not path.exists():
        raise BadInput(f"--artifact {path}: no such file or folder.")
    if path.is_file() or (path / MANIFEST).is_file():
        return (path,)
    found = tuple(sorted(manifest.parent for manifest in path.glob(f"*/{MANIFEST}")))
    if not found:
        raise BadInput(f"--artifact {path}: holds no {MANIFEST}, nor does a folder in it; give what convert wrote.")
    return found
