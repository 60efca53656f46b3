"""What would make a model fit: other weights, a smaller input, another cut, another form. Numbers are labelled."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from edge_deploy.api.fit_values import Alternative, Footprint
from edge_deploy.core.device import Device
from edge_deploy.core.errors import EdgeDeployError

__all__ = ["alternatives"]

SMALLEST_SIDE = 16
SIDE_STEP = 4  # sizes that stride-2 layers halve without a remainder twice


def alternatives(path: Path, footprint: Footprint, device: Device) -> tuple[Alternative, ...]:
    """Ways to need less, the ones with exact numbers first.

    Args:
        path: The model file; of a C project, the .tflite file that it was made of, where that is at hand.
    """
    found: list[Alternative] = []
    if path.suffix == ".tflite":
        if footprint.form == "TensorFlow Lite Micro":
            found += _as_c(path, footprint, device)
        if footprint.form in ("TensorFlow Lite Micro", "generated C"):
            found += _four_bits(footprint, device)
        found += _cut(path, footprint, device)
        found += _smaller_input(footprint, device)
    return tuple(found)


def fits(device: Device, flash: int | None, ram: int | None) -> bool | None:
    """Whether both fit; None where an amount that the device counts is not known."""
    if ram is None or (flash is None and device.flash_bytes is not None):
        return None
    return ram <= device.arena_room_bytes and (flash is None or flash <= (device.flash_bytes or flash))


def _as_c(path: Path, footprint: Footprint, device: Device) -> list[Alternative]:
    """The planner places every value and the arrays are counted, both exactly; code and stack are not."""
    from converters.c.from_tflite import refuse_floats
    from converters.c.graph import read_graph
    from converters.c.program import build
    from converters.c.source_text import flash_bytes

    try:
        graph = read_graph(path)
        refuse_floats(graph)
        program = build(graph)
    except EdgeDeployError:
        return []
    flash, ram = flash_bytes(program), program.arena_bytes
    as_c = replace(
        footprint,
        form="generated C",
        flash=replace(footprint.flash, bytes=flash, provenance="estimated"),
        ram=replace(footprint.ram, bytes=ram, provenance="estimated"),
    )
    narrow = _four_bits(as_c, device)
    further = [replace(each, name=f"generated C, {each.name}") for each in (*narrow, *_smaller_input(as_c, device))]
    for each in narrow:
        both = replace(as_c, flash=replace(as_c.flash, bytes=each.flash_bytes or flash))
        further += [
            replace(small, name=f"generated C, {each.name}, {small.name}") for small in _smaller_input(both, device)
        ]
    return [
        Alternative(
            name="generated C",
            flash_bytes=flash,
            ram_bytes=ram,
            fits=fits(device, flash, ram),
            provenance="estimated",
            how=f"edge-deploy convert {path.name} --to c --precision int8: arena and constants exactly, code and stack "
            "on top",
        ),
        *further,
    ]


def _four_bits(footprint: Footprint, device: Device) -> list[Alternative]:
    if not footprint.narrow_bytes:
        return []
    flash = footprint.flash.bytes - footprint.narrow_bytes // 2
    # TensorFlow Lite Micro widens the weights of the layer at hand into scratch memory; generated C does not.
    is_micro = footprint.form == "TensorFlow Lite Micro"
    ram = footprint.ram.bytes + (footprint.widest_layer_bytes if is_micro else 0)
    note = "; TensorFlow Lite Micro widens a layer's weights into its arena" if is_micro else ""
    return [
        Alternative(
            name="INT4 weights",
            flash_bytes=flash,
            ram_bytes=ram,
            fits=fits(device, flash, ram),
            provenance="estimated",
            how="convert the float model with --precision int4 --fallback int8: half of "
            f"{footprint.narrow_bytes} bytes of weights{note}",
        )
    ]


def _cut(path: Path, footprint: Footprint, device: Device) -> list[Alternative]:
    """The longest head that fits, where the whole does not: the rest runs elsewhere."""
    heads = []
    stored = live = 0
    # What is not values or weights of layers stays with every head.
    weights = sum(stage.weight_bytes for stage in footprint.stages)
    most = max((stage.live_bytes for stage in footprint.stages), default=0)
    flash_rest = max(0, footprint.flash.bytes - weights)
    ram_scale = footprint.ram.bytes / most if most else 1.0
    for number, stage in enumerate(footprint.stages[:-1]):
        stored += stage.weight_bytes
        live = max(live, stage.live_bytes)
        flash, ram = flash_rest + stored, math.ceil(live * ram_scale)
        if fits(device, flash, ram):
            heads.append((number, stage, flash, ram))
    if not heads or fits(device, footprint.flash.bytes, footprint.ram.bytes):
        return []
    number, stage, flash, ram = heads[-1]
    return [
        Alternative(
            name=f"cut behind {stage.layer}",
            flash_bytes=flash,
            ram_bytes=ram,
            fits=True,
            provenance="estimated",
            how=f"the first {number + 1} of {len(footprint.stages)} layers here, {stage.passed_bytes} bytes sent on "
            f"for each inference (edge-deploy cuts {path.name})",
        )
    ]


def _smaller_input(footprint: Footprint, device: Device) -> list[Alternative]:
    if not footprint.input_size or footprint.ram.bytes <= device.arena_room_bytes:
        return []
    height, width = footprint.input_size
    factor = math.sqrt(device.arena_room_bytes / footprint.ram.bytes)
    smaller = [int(side * factor) // SIDE_STEP * SIDE_STEP for side in (height, width)]
    if min(smaller) < SMALLEST_SIDE:
        return []
    ram = math.ceil(footprint.ram.bytes * (smaller[0] * smaller[1]) / (height * width))
    return [
        Alternative(
            name=f"input {smaller[0]}x{smaller[1]}",
            flash_bytes=footprint.flash.bytes,
            ram_bytes=ram,
            fits=fits(device, footprint.flash.bytes, ram),
            provenance="estimated",
            how=f"train and convert for it instead of {height}x{width}: values grow with the area; dense layers behind "
            "a flattening change too",
        )
    ]
