"""A microcontroller at a serial port whose firmware holds the model and speaks MLPerf Tiny's line protocol.

What is pushed stays here: it says what the model's inputs and outputs are. `device_tests/boards/serial_protocol.c` is
the board's side for generated C projects. Results travel with three decimals, as the protocol has it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from device_tests.input_sets import InputSet, npz_input_sets, random_input_sets
from device_tests.serial_line import BAUD, SerialLine
from device_tests.transports.local import LocalTransport
from edge_deploy.core.artifact import MANIFEST, Signature
from edge_deploy.core.benchmark import Machine
from edge_deploy.core.device import Device
from edge_deploy.core.errors import BadInput, DeviceError, EdgeDeployError, ToolchainError, Unsupported
from edge_deploy.core.serde import from_json, to_json
from edge_deploy.core.tensor import TensorInfo
from runtimes.calling import pick_signature
from runtimes.folder import read_artifact

__all__ = ["ADDRESS", "EMULATED", "PREFIX", "SerialChannel", "SerialTransport", "connect", "describe"]

PREFIX = "serial:"
ADDRESS = "/dev/tty...[:baud]"
EMULATED = False
ADDRESSABLE = 1 << 32
LEAST_S = 0.1  # of one value: the boards' clocks count microseconds, some only milliseconds
MOST_CALLS = 10_000_000
LEAST_STEP = 0.0011  # of an output: smaller ones are not told apart by three decimals


def describe(address: str) -> Device:
    """The board at the port; it tells no sizes, so all that 32 bits can address stands for them.

    Raises:
        BadInput: No such address.
        DeviceError: The board does not answer.
    """
    path, baud = _parsed(address)
    SerialLine(path, baud=baud).close()
    return Device(
        name=PREFIX + address,
        kind="microcontroller",
        isa="unknown",
        cores=1,
        ram_bytes=ADDRESSABLE,
        flash_bytes=ADDRESSABLE,
        transport="serial",
        address=address,
    )


def connect(device: Device) -> SerialTransport:
    """A transport to the board; see `device_tests.contracts.TransportModule`.

    Raises:
        BadInput: No such address.
    """
    _parsed(device.address)
    return SerialTransport(device)


class SerialTransport(LocalTransport):
    """A temporary folder keeps what was pushed; see `device_tests.contracts.Transport`."""

    def __init__(self, device: Device) -> None:
        super().__init__()
        self._device = device

    def run(  # type: ignore[override]  # another channel of the same contract
        self, module: str, arguments: Sequence[str] = (), *, environment: Mapping[str, str] | None = None
    ) -> SerialChannel:
        """A channel to the board's firmware; it runs no Python, so `module` is not used."""
        return SerialChannel(self._device, self.pushed)


class SerialChannel:
    """Answers load, warm, measure, infer and state; see `device_tests.contracts.Channel`."""

    def __init__(self, device: Device, pushed: Mapping[str, Path]) -> None:
        self._device = device
        self._pushed = pushed
        self._line: SerialLine | None = None
        self._signature: Signature | None = None
        self._sets: tuple[InputSet, ...] = ()

    def ask(self, request: Mapping[str, Any], *, timeout_s: float) -> Any:
        """See `device_tests.contracts.Channel`."""
        known: dict[str, Callable[..., dict[str, Any]]] = {
            "load": self._load,
            "warm": self._warm,
            "measure": self._measure,
            "infer": self._infer,
            "layers": self._layers,
            "state": self._state,
        }
        asked = request["do"]
        if asked not in known:
            raise BadInput(f"worker request {asked!r}: must be one of {', '.join(known)}.")
        try:
            return known[asked](**{key: value for key, value in request.items() if key != "do"}, timeout_s=timeout_s)
        except EdgeDeployError:
            raise
        except (TypeError, KeyError, ValueError) as error:
            raise ToolchainError(f"{PREFIX}{self._device.address}: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        """See `device_tests.contracts.Channel`."""
        if self._line is not None:
            self._line.close()
            self._line = None

    def _load(
        self,
        *,
        path: str,
        backend: str | None,
        signature: str | None,
        threads: int,
        kernels: str,
        seed: int,
        inputs: str | None,
        source: Sequence[Any],
        timeout_s: float,
    ) -> dict[str, Any]:
        chosen = self._signature_of(path, signature)
        if threads != 1 or kernels != "default" or backend is not None:
            raise Unsupported(f"{PREFIX}{self._device.address}: the firmware has one thread and its own kernels only.")
        if inputs is not None:
            infos = tuple(from_json(TensorInfo, info, where="source input") for info in source)
            self._sets = npz_input_sets(Path(inputs), chosen, infos)
        else:
            self._sets = random_input_sets(chosen, seed=seed)[:1]
        port, baud = _parsed(self._device.address)
        self.close()
        self._line = SerialLine(port, baud=baud)
        name = self._line.name
        profile = [line for line in self._line.ask("profile") if line.startswith("m-")]
        self._line.send_input(_bytes(self._sets[0], chosen))
        self._signature = chosen
        firmware = ", ".join(re.sub(r"^m-(\w+)-\[(.*)\]$", r"\1 \2", line) for line in profile)
        machine = Machine(
            cpu_model=self._device.core or name,
            isa=self._device.isa,
            features=(),
            cores=1,
            ram_bytes=self._device.ram_bytes,
            governor=None,
            kernel=f"firmware of {name}",
        )
        return {
            "machine": to_json(machine),
            "cpus": [],
            "memory_base": None,
            "memory_peak": None,
            "load_average": [],
            "load_s": 0.0,
            "base_rss_bytes": 0,
            "signature": chosen.name,
            "batch": 1,
            "kernels": f"firmware of {name} ({firmware})",
            "input_sets": 1,
            "notes": [
                "the model is part of the firmware: that it is this artifact is the user's to know",
                "times by the board's own clock; memory is unknown",
            ],
        }

    def _warm(self, *, rounds: int, runs: int, min_seconds: float, timeout_s: float) -> dict[str, Any]:
        # More and more of them, until the board's clock sees a time worth the name.
        values: list[float] = []
        count, seconds = 1, 0.0
        while seconds < LEAST_S / 10 and count < MOST_CALLS:
            count *= 10 if values else 1
            seconds, _ = self._opened().infer(count, warm_ups=1, timeout_s=timeout_s)
            values.append(seconds / count)
        once = max(values[-1], 1e-9)
        return {
            "values_s": values,
            "steady": len(values) > 1 and abs(values[-1] - values[-2]) <= 0.05 * values[-1],
            "values_per_round": max(1, math.ceil(runs / rounds), math.ceil(min_seconds / rounds / max(once, LEAST_S))),
            "calls_per_value": min(MOST_CALLS, max(1, math.ceil(LEAST_S / once))),
        }

    def _measure(self, *, values_per_round: int, calls_per_value: int, timeout_s: float) -> dict[str, Any]:
        values = []
        for _ in range(values_per_round):
            seconds, _results = self._opened().infer(calls_per_value, timeout_s=timeout_s)
            values.append(seconds / calls_per_value)
        return {"values_s": values}

    def _infer(self, *, inputs: str, outputs: str, timeout_s: float) -> dict[str, Any]:
        line, signature = self._opened(), self._loaded()
        with np.load(inputs, allow_pickle=False) as archive:
            arrays = {info.name: archive[info.name] for info in signature.inputs}
        rows: dict[str, list[np.ndarray]] = {info.name: [] for info in signature.outputs}
        count = min(len(array) for array in arrays.values())
        for number in range(count):
            line.send_input(_bytes({name: array[number] for name, array in arrays.items()}, signature))
            _, values = line.infer(1, timeout_s=timeout_s)
            for name, array in _outputs(values, signature).items():
                rows[name].append(array)
        with Path(outputs).open("wb") as file:
            np.savez(file, **{name: np.stack(each) for name, each in rows.items()})  # type: ignore[arg-type]  # names
        return {"samples": count}

    def _layers(self, *, timeout_s: float, **_wish: Any) -> dict[str, Any]:
        return {"layer_s": None}

    def _state(self, *, timeout_s: float) -> dict[str, Any]:
        return {"peak_rss_bytes": 0, "memory_peak": None, "load_average": []}

    def _signature_of(self, path: str, name: str | None) -> Signature:
        folder = self._pushed.get(f"{path}/{MANIFEST}")
        if folder is not None:
            return pick_signature(folder.parent, read_artifact(folder.parent).signatures, name)
        from runtimes.formats.facts import read_signatures

        if path not in self._pushed:
            raise BadInput(f"{path}: was not pushed.")
        return pick_signature(self._pushed[path], read_signatures(self._pushed[path]), name)

    def _opened(self) -> SerialLine:
        if self._line is None:
            raise BadInput("worker: nothing is loaded yet.")
        return self._line

    def _loaded(self) -> Signature:
        if self._signature is None:
            raise BadInput("worker: nothing is loaded yet.")
        return self._signature


def _bytes(values: Mapping[str, np.ndarray], signature: Signature) -> bytes:
    return b"".join(np.ascontiguousarray(values[info.name], info.dtype).tobytes() for info in signature.inputs)


def _outputs(values: Sequence[float], signature: Signature) -> dict[str, np.ndarray]:
    """Values of the results as the signature has them: quantized ones are exact again where a step is over 0.001."""
    found, at = {}, 0
    for info in signature.outputs:
        shape = tuple(abs(size) for size in info.shape)
        count = math.prod(shape)
        part = np.asarray(values[at : at + count], np.float64)
        at += count
        if info.scale and info.scale[0] < LEAST_STEP:
            raise Unsupported(f"output {info.name}: steps of {info.scale[0]:g}: three decimals do not tell them apart.")
        if info.scale:
            part = np.rint(part / info.scale[0]) + info.zero_point[0]
        if len(part) != count:
            raise DeviceError(f"output {info.name}: {len(part)} values came back, expected {count}.")
        found[info.name] = part.astype(info.dtype).reshape(shape)
    return found


def _parsed(address: str) -> tuple[str, int]:
    path, colon, baud = address.rpartition(":")
    if not colon or not baud.isdigit():
        path, baud = address, str(BAUD)
    if not path.startswith("/"):
        raise BadInput(f"--device {PREFIX}{address}: must be {PREFIX}{ADDRESS}.")
    return path, int(baud)
