"""Does a model fit a device: flash and RAM, the layer with the most memory, and what would make it fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from converters.ethos_u.vela import NpuEstimate, estimate_npu
from device_tests.device_list import device_names, find_device
from edge_deploy.api.fit_alternatives import alternatives, fits
from edge_deploy.api.fit_footprint import C_SOURCE, form_of
from edge_deploy.api.fit_values import Alternative, FitReport, Footprint, Need
from edge_deploy.core.artifact import MANIFEST
from edge_deploy.core.device import Device
from edge_deploy.core.errors import BadInput, MissingExtra, ToolchainError, Unsupported
from runtimes.folder import artifact_file, check_files, read_artifact

__all__ = ["FitReport", "fit"]


def fit(artifact: Path | str, *, device: str, npu: str | None = None) -> FitReport:
    """What the artifact needs against what the device has; nothing is sent anywhere.

    Args:
        artifact: An artifact's folder, a .tflite or .pte file, or the model.c of a C project.
        device: As `--device` takes it.
        npu: Accelerator to estimate for, e.g. "ethos-u55-128"; None for the device's own.

    Raises:
        BadInput: No such file or device, or damaged.
    """
    path = Path(artifact)
    where = find_device(device)
    model, name, kind = _model(path)
    footprint = form_of(model, where)
    needs = [Need(what="RAM", amount=footprint.ram, room_bytes=where.arena_room_bytes)]
    if where.flash_bytes is not None:
        needs.insert(0, Need(what="flash", amount=footprint.flash, room_bytes=where.flash_bytes))
    tflite = model.with_name(C_SOURCE) if model.suffix == ".c" else model
    others = alternatives(tflite, footprint, where) if tflite.is_file() else ()
    notes = _notes(where)
    estimate = None
    accelerator = npu or where.npu
    if accelerator and tflite.suffix == ".tflite" and tflite.is_file():
        try:
            estimate = _at_clock(estimate_npu(tflite, accelerator), where)
        except (MissingExtra, ToolchainError, Unsupported) as error:
            notes += tuple(f"{accelerator}: {problem}" for problem in error.problems or (str(error),))
    if estimate is not None:
        others = (*others, _on_npu(estimate, where))
    report = FitReport(
        artifact=name,
        format=kind,
        device=where,
        footprint=footprint,
        needs=tuple(needs),
        alternatives=others,
        npu=estimate,
        notes=notes,
    )
    if not report.fits and not footprint.refused:
        report = replace(report, alternatives=(*others, *_other_devices(footprint, where)))
    return report


def _model(path: Path) -> tuple[Path, str, str]:
    """The model file, and what it is called."""
    if not path.is_dir():
        if not path.is_file():
            raise BadInput(f"{path}: no such file or folder.")
        return path, path.name, {".tflite": "tflite", ".pte": "executorch", ".c": "c"}.get(path.suffix, "")
    if not (path / MANIFEST).is_file():
        raise BadInput(f"{path}: is no artifact (no {MANIFEST}); name a model file, or an artifact's folder.")
    found = read_artifact(path)
    check_files(path, found)
    return artifact_file(path, found.model_file.path), f"{found.name} {found.format} {found.spec.recipe}", found.format


def _notes(device: Device) -> tuple[str, ...]:
    if device.ram_block_bytes is not None and device.ram_block_bytes < device.ram_bytes:
        return (
            f"{device.name} has {device.ram_bytes} bytes of RAM in all; an arena lies in one piece, of at most "
            f"{device.ram_block_bytes} bytes.",
        )
    return ()


def _at_clock(estimate: NpuEstimate, device: Device) -> NpuEstimate:
    """The cycles at the device's clock, where it has this NPU and says its clock; memory stays the compiler's."""
    if estimate.accelerator != device.npu or device.npu_clock_hz is None:
        return estimate
    return replace(estimate, clock_hz=device.npu_clock_hz, seconds=estimate.cycles / device.npu_clock_hz)


def _on_npu(estimate: NpuEstimate, device: Device) -> Alternative:
    return Alternative(
        name=f"NPU {estimate.accelerator}",
        flash_bytes=estimate.flash_bytes,
        ram_bytes=estimate.sram_bytes,
        fits=fits(device, estimate.flash_bytes, estimate.sram_bytes),
        provenance="estimated",
        how=f"compiled by {estimate.compiler}: {estimate.operators - estimate.cpu_operators} of {estimate.operators} "
        "operators on the NPU, TensorFlow Lite Micro around it",
    )


def _other_devices(footprint: Footprint, device: Device) -> tuple[Alternative, ...]:
    """The described device with the least RAM on which it fits as it is."""
    if device.kind not in ("microcontroller", "emulated"):
        return ()
    known = [find_device(name) for name in device_names() if name != "host"]
    roomy = [
        each
        for each in known
        if each.kind == "microcontroller" and fits(each, footprint.flash.bytes, footprint.ram.bytes)
    ]
    if not roomy:
        return ()
    smallest = min(roomy, key=lambda each: (each.arena_room_bytes, each.flash_bytes or 0))
    return (
        Alternative(
            name=f"device {smallest.name}",
            flash_bytes=footprint.flash.bytes,
            ram_bytes=footprint.ram.bytes,
            fits=True,
            provenance="estimated",
            how="the smallest described microcontroller that holds it as it is",
        ),
    )
