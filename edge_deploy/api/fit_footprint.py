"""What a model takes on a device, form by form: measured where that can be had, estimated and labelled otherwise."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from device_tests.boards.board import BOARDS
from edge_deploy.api.fit_stages import image_size, peak_of, tflite_stages, weights_of_kernels
from edge_deploy.api.fit_values import Amount, Footprint, Stage
from edge_deploy.core.device import Device
from edge_deploy.core.errors import BadInput, EdgeDeployError, MissingExtra

if TYPE_CHECKING:
    from converters.c.program import Program

__all__ = ["c_footprint", "form_of", "pte_footprint", "tflite_footprint"]

C_SOURCE = "model.tflite"


def tflite_footprint(path: Path, device: Device) -> Footprint:
    """A .tflite file: with TensorFlow Lite Micro on a microcontroller, memory-mapped everywhere else.

    Raises:
        BadInput: Damaged.
    """
    stages = tflite_stages(path)
    peak = peak_of(stages)
    least = stages[peak].live_bytes if peak is not None else 0
    narrow, widest = weights_of_kernels(path)
    size = path.stat().st_size
    notes: tuple[str, ...] = ()
    refused = ""
    if device.kind != "microcontroller" and device.flash_bytes is None:
        form, code = "LiteRT", "the file"
        how = "the file, all of it touched, and the most values alive at once; the runtime's own memory on top"
        ram = Amount(bytes=size + least, provenance="estimated", how=how)
    else:
        form, code = "TensorFlow Lite Micro", "the file; TensorFlow Lite Micro's code on top"
        ram, notes, refused = _micro_ram(path, least)
    return Footprint(
        form=form,
        flash=Amount(bytes=size, provenance="measured", how=code),
        ram=ram,
        stages=stages,
        peak=peak,
        input_size=image_size(path),
        narrow_bytes=narrow,
        widest_layer_bytes=widest,
        refused=refused,
        notes=notes,
    )


def _micro_ram(path: Path, least: int) -> tuple[Amount, tuple[str, ...], str]:
    """The arena, notes on it, and why the model is refused where it is."""
    from runtimes.micro.arena import measure_arena

    how = "the most values alive at once; TensorFlow Lite Micro's structures and scratch memory on top"
    estimated = Amount(bytes=least, provenance="estimated", how=how)
    try:
        arena = measure_arena(path)
    except MissingExtra as error:
        return estimated, (str(error),), ""
    except EdgeDeployError as error:
        return estimated, ("edge-deploy export-tflm names every layer that it refuses",), error.problems[0]
    how = f"arena: values {arena.head_bytes}, structures {arena.tail_bytes} ({arena.runtime}, {arena.kernels})"
    note = "a 32-bit core needs less for structures; kernels tuned for a core may need scratch memory of their own"
    return Amount(bytes=arena.total_bytes, provenance="measured", how=how), (note,), ""


def c_footprint(project: Path, device: Device) -> Footprint:
    """A C project: linked and run for the device's core where its compiler and emulator are here.

    Args:
        project: The folder with model.c.

    Raises:
        BadInput: No C project.
    """
    from runtimes.formats.c_source import arena_bytes

    arena = arena_bytes(project / "model.c")
    source = project / C_SOURCE
    stages: tuple[Stage, ...] = ()
    peak: int | None = None
    size: tuple[int, ...] = ()
    narrow = widest = 0
    constants = None
    if source.is_file():
        from converters.c.graph import read_graph
        from converters.c.program import build
        from converters.c.source_text import flash_bytes

        program = build(read_graph(source))
        constants = flash_bytes(program)
        stages = tflite_stages(source)
        highest = _highest(program)
        # Steps that are computed beforehand are stages of the file and none of the program.
        peak = next((place for place, stage in enumerate(stages) if stage.layer == highest), None)
        size = image_size(source)
        narrow, widest = weights_of_kernels(source)
    flash, ram = _linked(project, device, arena, constants)
    return Footprint(
        form="generated C",
        flash=flash,
        ram=ram,
        stages=stages,
        peak=peak if peak is not None else peak_of(stages),
        input_size=size,
        narrow_bytes=narrow,
        widest_layer_bytes=widest,
        notes=(
            "outputs lie over inputs that die with the layer, so that the arena may be smaller than all that is alive",
        ),
    )


def _highest(program: Program) -> str:
    """The layer whose values reach the arena's end."""
    reach = []
    for number, step in enumerate(program.steps):
        values = [t for t in (*step.node.inputs, *step.node.outputs) if t is not None and t.index in program.places]
        ends = [program.places[t.index] + t.bytes for t in values]
        ends.append(program.scratch.get(number, 0) + step.scratch_bytes)
        reach.append(max(ends))
    return program.steps[max(range(len(reach)), key=lambda place: reach[place])].node.layer if reach else ""


def _linked(project: Path, device: Device, arena: int, constants: int | None) -> tuple[Amount, Amount]:
    """Flash and RAM of the whole program on the device's core; of its arrays where that core is not emulated."""
    from device_tests.boards.emulator import run_on_board
    from device_tests.input_sets import random_input_sets
    from runtimes.formats.c_source import read_signatures

    board = BOARDS.get(device.core)
    missing = [program for program in ("arm-none-eabi-gcc", "qemu-system-arm", "cc") if shutil.which(program) is None]
    if board is None or missing:
        why = f"{', '.join(missing)} not installed" if missing else f"no {device.core or device.isa} is emulated here"
        stored = constants if constants is not None else (project / "model.c").stat().st_size
        what = "constants" if constants is not None else "the text of model.c, which is larger than its arrays"
        return (
            Amount(bytes=stored, provenance="estimated", how=f"{what}; the code on top ({why})"),
            Amount(bytes=arena, provenance="measured", how=f"arena of model.h; the stack on top ({why})"),
        )
    (signature,) = read_signatures(project / "model.c")
    (feeds, *_) = random_input_sets(signature, seed=0)
    ran = run_on_board(project, signature, board, {name: array[np.newaxis] for name, array in feeds.items()})
    return (
        Amount(bytes=ran.flash_bytes, provenance="measured", how=f"linked for {board.name}: constants and all code"),
        Amount(
            bytes=ran.ram_bytes,
            provenance="emulated",
            how=f"arena {arena}, other values, and a stack of {ran.stack_bytes} seen in a run on emulated {board.name}",
        ),
    )


def pte_footprint(path: Path, weights_beside: int = 0) -> Footprint:
    """A .pte file: its planned memory is what it says itself.

    Args:
        weights_beside: Bytes of data files that belong to it.

    Raises:
        BadInput: Damaged.
    """
    from runtimes.formats.pte import read_pte

    program = read_pte(path)
    method = program.main
    names = ", ".join(f"{name} x{count}" for name, count in sorted(method.operators.items())) or "none"
    delegates = ", ".join(f"{name} ({size} bytes)" for name, size in method.delegates) or "none"
    return Footprint(
        form="ExecuTorch",
        flash=Amount(
            bytes=program.bytes + weights_beside,
            provenance="measured",
            how="the files; the runtime's code and kernels on top",
        ),
        ram=Amount(
            bytes=method.planned_bytes,
            provenance="measured",
            how=f"planned memory of method {method.name}; what its runtime and delegates allocate on top",
        ),
        notes=(f"kernels called: {names}", f"delegates: {delegates}", "read from the file, not run"),
    )


def form_of(path: Path, device: Device) -> Footprint:
    """The footprint of a model file, by its type.

    Raises:
        BadInput: None of .tflite, .pte and model.c, or damaged.
    """
    if path.suffix == ".tflite":
        return tflite_footprint(path, device)
    if path.suffix == ".pte":
        from runtimes.folder import weights_beside

        return pte_footprint(path, sum(each.stat().st_size for each in weights_beside(path)))
    if path.suffix == ".c":
        return c_footprint(path.parent, device)
    raise BadInput(f"{path}: must be a .tflite or .pte file, the model.c of a C project, or an artifact's folder.")
