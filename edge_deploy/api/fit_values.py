"""What a model needs of a device and what would make it fit: the values of `edge-deploy fit`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from converters.ethos_u.vela import NpuEstimate
from edge_deploy.core.benchmark import Provenance
from edge_deploy.core.device import Device

__all__ = ["Alternative", "Amount", "FitReport", "Footprint", "Kind", "Need", "Stage"]

Kind: TypeAlias = Literal["flash", "RAM"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """Bytes, and how they are known.

    Attributes:
        provenance: "measured" on bytes that exist (a linked program, a runtime's own count), "emulated" on a board that
            QEMU plays, "estimated" otherwise.
        how: In words, e.g. "TensorFlow Lite Micro's arena (x86-64 reference kernels)".
    """

    bytes: int
    provenance: Provenance
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One layer in the order of execution.

    Attributes:
        live_bytes: Of all values that exist while it runs: its inputs, its outputs, and what later layers wait for.
        tensors: The largest of them, with their bytes.
        weight_bytes: Of its own constants.
        passed_bytes: Of what later layers take from it and those before it: what crosses a cut behind it.
    """

    layer: str
    op: str
    live_bytes: int
    tensors: tuple[tuple[str, int], ...] = ()
    weight_bytes: int = 0
    passed_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What a model takes in one form.

    Attributes:
        form: E.g. "generated C", "TensorFlow Lite Micro".
        peak: Place in `stages` of the layer with the most live bytes; None where layers are not told apart.
        input_size: Height and width of the first input; empty where it is no image.
        narrow_bytes: Of 8-bit weights of layers that have 4-bit kernels in this form.
        widest_layer_bytes: Of the largest of those.
        refused: Why the form does not run the model at all; empty where it does.
    """

    form: str
    flash: Amount
    ram: Amount
    stages: tuple[Stage, ...] = ()
    peak: int | None = None
    input_size: tuple[int, ...] = ()
    narrow_bytes: int = 0
    widest_layer_bytes: int = 0
    refused: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """One amount against what the device has; `room_bytes` None where the device does not count it."""

    what: Kind
    amount: Amount
    room_bytes: int | None

    @property
    def fits(self) -> bool:
        """There is room, or nobody counts."""
        return self.room_bytes is None or self.amount.bytes <= self.room_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """One way to need less.

    Attributes:
        fits: On the device; None where one of the amounts is not known.
        how: What to do, e.g. a command.
    """

    name: str
    flash_bytes: int | None
    ram_bytes: int | None
    fits: bool | None
    provenance: Provenance
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FitReport:
    """The answer of `edge-deploy fit`.

    Attributes:
        npu: What the accelerator's compiler estimates, where there is one.
    """

    artifact: str
    format: str
    device: Device
    footprint: Footprint
    needs: tuple[Need, ...]
    alternatives: tuple[Alternative, ...] = ()
    npu: NpuEstimate | None = None
    notes: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """It runs, and everything has room."""
        return not self.footprint.refused and all(need.fits for need in self.needs)
