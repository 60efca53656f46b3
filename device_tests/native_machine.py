"""The machine that a native runner found itself on, from what it read there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_deploy.core.benchmark import Machine
from runtimes.probes.machine import QUANTIZED_FEATURES

__all__ = ["machine_of"]


def machine_of(said: Mapping[str, Any], *, cpu_model: str = "") -> Machine:
    """The machine; what the device does not tell is "unknown", empty or None.

    Args:
        said: What the runner answers: cpuinfo, isa, cores, ram_bytes, governor, kernel.
        cpu_model: Known otherwise, e.g. of an emulated core.
    """
    fields: dict[str, str] = {}
    for line in str(said["cpuinfo"]).splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    part = f"{fields['CPU implementer']} part {fields['CPU part']}" if "CPU part" in fields else "unknown"
    return Machine(
        cpu_model=cpu_model or fields.get("model name") or fields.get("Hardware") or part,
        isa=str(said["isa"]) or "unknown",
        features=tuple(name for name in QUANTIZED_FEATURES if name in flags),
        cores=max(1, int(said["cores"])),
        ram_bytes=max(1, int(said["ram_bytes"])),
        governor=str(said["governor"]) or None,
        kernel=str(said["kernel"]),
    )
