"""Artifacts on a device without a time of its own: instructions, memory, and every bit of the outputs compared."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from device_tests.benchmark import Subject, read_subject
from device_tests.device_list import connect, find_device
from device_tests.input_sets import npz_input_sets, random_input_sets, unbounded_ids
from device_tests.reference import Answers, differences, infer_on, reference_answers, signature_of
from edge_deploy.core.artifact import Signature
from edge_deploy.core.benchmark import BenchmarkReport, Counted, Machine, RunConditions
from edge_deploy.core.device import Device
from edge_deploy.core.digest import file_sha256
from edge_deploy.core.errors import BadInput

__all__ = ["count_instructions"]

SAMPLES = 8


def count_instructions(
    artifacts: Sequence[Path],
    *,
    device: str,
    inputs: Path | None = None,
    samples: int = SAMPLES,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> tuple[BenchmarkReport, ...]:
    """One report for each artifact, with counts where others have seconds; the outputs are held against a reference.

    Nothing takes turns: a count does not depend on what the machine does besides.

    Args:
        inputs: An npz file in the source model's terms (a bare project's own); absent: random inputs that fit.
        samples: At most so many of them are run.

    Raises:
        BadInput: No such artifact or inputs.
        DeviceError: It does not fit the device's flash and RAM, faults, or gives no answer.
        MissingExtra: Compiler or emulator are not installed.
    """
    if samples < 1:
        raise BadInput(f"samples = {samples}: must be at least 1.")
    say = progress or (lambda line: None)
    where = find_device(device)
    subjects = [read_subject(path) for path in artifacts]
    group = uuid.uuid4().hex
    reports = []
    with closing(connect(where)) as transport:
        for number, subject in enumerate(subjects):
            signature = signature_of(subject)
            feeds, notes = _feeds(subject, signature, inputs, samples, seed)
            say(f"{subject.name} {subject.recipe}: build and run on {where.name}")
            got = infer_on(transport, subject, feeds, at=str(number))
            say(f"{subject.name} {subject.recipe}: run the reference here")
            wanted = reference_answers(subject, feeds)
            reports.append(_report(subject, where, signature, got, wanted, inputs, seed, group, notes))
    return tuple(reports)


def _feeds(
    subject: Subject, signature: Signature, inputs: Path | None, samples: int, seed: int
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    notes: tuple[str, ...] = ()
    if inputs is not None:
        sets = npz_input_sets(inputs, signature, subject.source)
    else:
        sets = random_input_sets(signature, seed=seed)
        notes = tuple(
            f"input {name}: zeros, because nothing says how large its values may be"
            for name in unbounded_ids(signature)
        )
    chosen = sets[:samples]
    return {info.name: np.stack([each[info.name] for each in chosen]) for info in signature.inputs}, notes


def _report(
    subject: Subject,
    device: Device,
    signature: Signature,
    got: Answers,
    wanted: Answers,
    inputs: Path | None,
    seed: int,
    group: str,
    notes: tuple[str, ...],
) -> BenchmarkReport:
    found = differences(got.outputs, wanted.outputs)
    told: dict[str, Any] = got.told
    return BenchmarkReport(
        artifact=subject.name,
        format=subject.format,
        recipe=subject.recipe,
        sha256=subject.sha256,
        model_bytes=told["flash_bytes"],
        device=device,
        machine=Machine(
            cpu_model=f"{device.core or device.isa}, {got.loaded['emulator']}",
            isa=device.isa,
            features=(),
            cores=1,
            ram_bytes=device.ram_bytes,
            governor=None,
            kernel="bare metal",
        ),
        conditions=RunConditions(
            threads=1,
            kernels=got.loaded["kernels"],
            batch=max(signature.inputs[0].shape[0], 1) if signature.inputs[0].shape else 1,
            signature=signature.name,
            inputs=f"random, seed {seed}" if inputs is None else "the given npz file",
            input_sets=len(next(iter(got.outputs.values()))),
            inputs_sha256=file_sha256(inputs) if inputs is not None else "",
        ),
        provenance="emulated",
        group=group,
        load_s=0.0,
        warm_up_s=(),
        rounds_s=(),
        base_rss_bytes=0,
        peak_rss_bytes=told["ram_bytes"],
        notes=notes,
        counted=Counted(
            instructions=told["instructions"],
            by_function=told["by_function"],
            flash_bytes=told["flash_bytes"],
            ram_bytes=told["ram_bytes"],
            differing_bits=sum(each.differing_bits for each in found),
            compared_bits=sum(each.bits for each in found),
            reference=wanted.loaded["kernels"],
        ),
    )
