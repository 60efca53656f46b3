"""Outputs of an artifact on a device, and of its reference on this machine, bit by bit side by side."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from device_tests.benchmark import LOAD_TIMEOUT_S, RUN_TIMEOUT_S, Subject, Turn, ask
from device_tests.contracts import Transport
from device_tests.device_list import connect, find_device
from edge_deploy.core.artifact import Signature
from edge_deploy.core.serde import to_json

__all__ = ["Answers", "Difference", "differences", "infer_on", "reference_answers", "signature_of", "stacked"]

# What a C project keeps of the file that it was made of.
C_SOURCE = "model.tflite"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Outputs, [samples, ...] by name, and what the worker told of the runs.

    Attributes:
        loaded: Its answer to `load`.
        told: Its answer to `infer`: counts, where the device counts.
    """

    outputs: dict[str, np.ndarray]
    loaded: dict[str, Any]
    told: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How far the values of one output are from the reference's.

    Attributes:
        largest: In the output's own steps for integers, else in its values.
    """

    output: str
    values: int
    differing: int
    bits: int
    differing_bits: int
    largest: float


def signature_of(subject: Subject, name: str | None = None) -> Signature:
    """How the subject is called.

    Raises:
        BadInput: It has no signature of this name.
    """
    from runtimes.calling import pick_signature
    from runtimes.folder import read_artifact
    from runtimes.formats.facts import read_signatures

    model = subject.path
    known = read_artifact(model).signatures if subject.is_folder else read_signatures(model)
    return pick_signature(model, known, name)


def infer_on(
    transport: Transport,
    subject: Subject,
    inputs: Mapping[str, np.ndarray],
    *,
    at: str = "0",
    threads: int = 1,
    backend: str | None = None,
    signature: str | None = None,
    kernels: str = "default",
) -> Answers:
    """Run samples through a subject on the device behind `transport`.

    Args:
        inputs: [samples, *shape] by name, in the signature's own types.
        at: Folder of this subject within the run's folder.

    Raises:
        DeviceError: It does not fit, or the worker died or gave no answer.
    """
    pushed = [transport.push(file, f"{at}/{name}", sha256=digest) for file, name, digest in subject.files]
    path = str(Path(pushed[0]).parent) if subject.is_folder else pushed[0]
    with (
        tempfile.TemporaryDirectory(prefix="edge-deploy-infer-") as scratch,
        closing(
            transport.run(
                "device_tests.worker", environment={"OMP_NUM_THREADS": str(threads), "TF_CPP_MIN_LOG_LEVEL": "3"}
            )
        ) as channel,
    ):
        turn = Turn(subject=subject, channel=channel, path=path)
        given, made = Path(scratch) / "in.npz", Path(scratch) / "out.npz"
        with given.open("wb") as file:
            np.savez(file, **inputs)  # type: ignore[arg-type]  # names of the signature
        feeds = transport.push(given, f"{at}-in.npz")
        load = {
            "do": "load",
            "path": path,
            "backend": backend,
            "signature": signature,
            "threads": threads,
            "kernels": kernels,
            "seed": 0,
            "inputs": None,
            "source": to_json(subject.source),
        }
        loaded = ask(turn, load, timeout_s=LOAD_TIMEOUT_S)
        answers = str(Path(feeds).with_name(f"{at}-out.npz"))
        told = ask(turn, {"do": "infer", "inputs": feeds, "outputs": answers}, timeout_s=RUN_TIMEOUT_S)
        transport.pull(f"{at}-out.npz", made)
        with np.load(made, allow_pickle=False) as archive:
            outputs = {name: archive[name] for name in archive.files}
    return Answers(outputs=outputs, loaded=loaded, told=told)


def reference_answers(subject: Subject, inputs: Mapping[str, np.ndarray], *, signature: str | None = None) -> Answers:
    """What this machine makes of the same samples, in a child process.

    A C project is held against the reference kernels of TensorFlow Lite on the file that it was made of, or against
    itself compiled here where that file, or LiteRT, is not at hand. Everything else runs on its own runtime here.
    """
    reference, kernels = subject, "default"
    if subject.format == "c":
        source = subject.path / C_SOURCE if subject.is_folder else subject.path.with_name(C_SOURCE)
        if source.is_file() and _litert_is_installed():
            from device_tests.benchmark import read_subject

            reference, kernels = read_subject(source), "reference"
    transport = connect(find_device("host"))
    with closing(transport):
        return infer_on(
            transport, reference, inputs, kernels=kernels, signature=signature if reference is subject else None
        )


def differences(got: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]) -> tuple[Difference, ...]:
    """Output by output, in the order of `wanted`."""
    return tuple(_difference(name, got[name], values) for name, values in wanted.items())


def stacked(sets: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """[samples, ...] by name of one set a sample."""
    return {name: np.stack([each[name] for each in sets]) for name in sets[0]}


def _difference(name: str, got: np.ndarray, want: np.ndarray) -> Difference:
    ours, theirs = np.ascontiguousarray(got), np.ascontiguousarray(want)
    bits = np.unpackbits(ours.view(np.uint8) ^ theirs.view(np.uint8)) if ours.size else np.zeros(0, np.uint8)
    distance = np.abs(ours.astype(np.float64) - theirs.astype(np.float64))
    return Difference(
        output=name,
        values=ours.size,
        differing=int((ours != theirs).sum()),
        bits=bits.size,
        differing_bits=int(bits.sum()),
        largest=float(distance.max(initial=0.0)),
    )


def _litert_is_installed() -> bool:
    import importlib.util

    return importlib.util.find_spec("ai_edge_litert") is not None
