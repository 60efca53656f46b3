"""A worker without Python: answers the requests of a `Channel` through a native runner that is pushed to the device."""

from __future__ import annotations

import math
import re
import secrets
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from device_tests.contracts import Channel, ProgramTransport
from device_tests.input_sets import InputSet, npz_input_sets, random_input_sets, unbounded_ids
from device_tests.native_machine import machine_of
from device_tests.native_model import NativeModel, find_model
from edge_deploy.core.artifact import Signature
from edge_deploy.core.errors import BadInput, DeviceError, EdgeDeployError, ToolchainError
from edge_deploy.core.serde import from_json, to_json
from edge_deploy.core.tensor import TensorInfo
from runtimes.calling import check_inputs
from runtimes.formats.nibble_ptd import inflate, is_packed
from runtimes.runners.bundle import Bundle, runner_bundle

__all__ = ["NativeChannel"]

CLOCKS = "for f in /sys/devices/system/cpu/cpu[0-9]*/cpufreq/cpuinfo_max_freq; do echo $f $(cat $f); done 2>&1"
CLOCK = re.compile(r"/cpu(\d+)/cpufreq/cpuinfo_max_freq (\d+)$", re.MULTILINE)
ROUNDED_ONCE = (
    "builtin kernels round once on ARM and twice on x86: a layer's values are at most one step from a computer's, "
    "a net's as far as its layers make of that; INT8 by XNNPACK is the same on both"
)
MOST_SET_BYTES = 8_000_000
"""Random inputs travel to the device: fewer different ones than a local worker makes."""


class NativeChannel:
    """Compiles the runner for the device, pushes it with all it needs, and speaks with it.

    Args:
        transport: What was pushed through it is known; it starts the runner.
        isa: Of the device: "x86_64" or "aarch64".
        label: What a reader must know of how it runs there, e.g. "emulated cortex-a76 (qemu)".
        cpu_model: Of the device, where it cannot tell by itself; empty asks it.
        notes: For the report.
    """

    def __init__(
        self,
        transport: ProgramTransport,
        *,
        isa: str,
        label: str,
        environment: Mapping[str, str] | None = None,
        cpu_model: str = "",
        notes: Sequence[str] = (),
    ) -> None:
        self._transport = transport
        self._isa = isa
        self._label = label
        self._environment = dict(environment or {})
        self._cpu_model = cpu_model
        self._notes = tuple(notes)
        self._runner: Channel | None = None
        self._model: NativeModel | None = None
        self._cpus: tuple[int, ...] = ()
        self._files = 0
        self._token = secrets.token_hex(4)  # channels of one transport share its folder
        self.kernels = ""

    @property
    def signature(self) -> Signature:
        """Of the loaded model.

        Raises:
            BadInput: None is loaded yet.
        """
        return self._loaded().signature

    def ask(self, request: Mapping[str, Any], *, timeout_s: float) -> Any:
        """See `device_tests.contracts.Channel`."""
        known: dict[str, Callable[..., Any]] = {
            "load": self._load,
            "warm": self._pass_on,
            "measure": self._pass_on,
            "state": self._pass_on,
            "conditions": self._pass_on,
            "infer": self._infer,
            "layers": self._layers,
            "pin": self._pin,
        }
        asked = request["do"]
        if asked not in known:
            raise BadInput(f"worker request {asked!r}: must be one of {', '.join(known)}.")
        if known[asked] == self._pass_on:
            return self._pass_on(request, timeout_s=timeout_s)
        try:
            return known[asked](**{key: value for key, value in request.items() if key != "do"}, timeout_s=timeout_s)
        except EdgeDeployError:
            raise
        except (TypeError, KeyError, ValueError) as error:
            raise ToolchainError(f"native runner: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        """See `device_tests.contracts.Channel`."""
        if self._runner is not None:
            self._runner.close()

    def outputs(self, sets: Sequence[InputSet], *, timeout_s: float) -> list[dict[str, np.ndarray]]:
        """The model's outputs for each set of inputs, arrays as the signature describes them.

        All inputs travel in one file, and all outputs in another.

        Raises:
            BadInput: An input is missing, unknown or of another shape or type.
            DeviceError: The device is gone, or its storage is full.
        """
        model, runner = self._loaded(), self._running()
        for values in sets:
            check_inputs(model.signature, values)
        shapes = {tuple(values[info.name].shape for info in model.signature.inputs) for values in sets}
        if shapes != {self._shapes}:
            raise BadInput(f"{model.file}: the runner was loaded for inputs of shape {self._shapes}, given {shapes}.")
        with tempfile.TemporaryDirectory(prefix="edge-deploy-infer-") as folder:
            given, found = self._name("in.bin"), self._name("out.bin")
            path = self._push_sets(sets, Path(folder, "in.bin"), given)
            request = {
                "do": "infer",
                "file": path,
                "outputs_file": f"{self._transport.folder}/{found}",
                "sets": len(sets),
            }
            runner.ask(request, timeout_s=timeout_s)
            self._transport.pull(found, Path(folder, "out.bin"))
            data = Path(folder, "out.bin").read_bytes()
        return self._parsed(data, len(sets))

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
        batch: int = 1,
    ) -> dict[str, Any]:
        model = find_model(path, self._transport.pushed, backend=backend, signature=signature)
        sets, notes = self._sets(model, inputs, source, seed, batch)
        self._shapes = tuple(sets[0][info.name].shape for info in model.signature.inputs)
        data, note = self._data(model)
        if model.runtime == "litert" and kernels == "builtin" and self._isa == "aarch64":
            note = [*note, ROUNDED_ONCE]
        runner = self._started(runner_bundle(model.runtime, self._isa))
        if self._cpus:
            runner.ask({"do": "pin", "cpus": list(self._cpus)}, timeout_s=timeout_s)
        answer = runner.ask(
            {
                "do": "load",
                "model": model.path,
                "data": data,
                "signature": model.signature.name,
                "threads": threads,
                "kernels": kernels,
                "inputs": [info.name for info in model.signature.inputs],
                "outputs": [info.name for info in model.signature.outputs],
                "shapes": ["x".join(map(str, shape)) for shape in self._shapes],
            },
            timeout_s=timeout_s,
        )
        self._check_border(model, answer)
        self._model, self._outputs = model, answer["outputs"]
        with tempfile.TemporaryDirectory(prefix="edge-deploy-inputs-") as folder:
            there = self._push_sets(sets, Path(folder, "sets.bin"), self._name("sets.bin"))
        runner.ask({"do": "inputs", "file": there, "sets": len(sets)}, timeout_s=timeout_s)
        kernel_set = {"litert": "builtin" if kernels == "builtin" else "XNNPACK", "executorch": "XNNPACK+portable"}
        self.kernels = f"{self._bundle.runtime} {kernel_set[model.runtime]}, native runner, {self._label}"
        return {
            "machine": to_json(machine_of(answer["machine"], cpu_model=self._cpu_model)),
            "cpus": list(self._cpus),
            "memory_base": answer["memory_base"],
            "memory_peak": answer["memory_peak"],
            "load_average": answer["load_average"],
            "load_s": answer["load_s"],
            "base_rss_bytes": answer["base_rss_bytes"],
            "signature": model.signature.name,
            "batch": self._shapes[0][0] if self._shapes and self._shapes[0] else 1,
            "kernels": self.kernels,
            "input_sets": len(sets),
            "notes": [*self._notes, *notes, *note],
        }

    def _sets(
        self, model: NativeModel, inputs: str | None, source: Sequence[Any], seed: int, batch: int
    ) -> tuple[tuple[InputSet, ...], list[str]]:
        if inputs is not None:
            infos = tuple(from_json(TensorInfo, info, where="source input") for info in source)
            return npz_input_sets(self._original(inputs), model.signature, infos), []
        made = random_input_sets(_with_batch(model.signature, batch), seed=seed)
        size = sum(array.nbytes for array in made[0].values())
        notes = [
            f"input {name}: zeros, because nothing says how large its values may be"
            for name in unbounded_ids(model.signature)
        ]
        return made[: max(1, MOST_SET_BYTES // max(size, 1))], notes

    def _data(self, model: NativeModel) -> tuple[str, list[str]]:
        """Path of the weights on the device; packed 4-bit ones are unpacked here, because no runtime reads them."""
        if model.data_file is None or not is_packed(model.data_file):
            return model.data_path, []
        name = model.data_path.removeprefix(self._transport.folder + "/") + ".inflated"
        with tempfile.TemporaryDirectory(prefix="edge-deploy-inflate-") as folder:
            plain = Path(folder, "plain.ptd")
            plain.write_bytes(inflate(model.data_file.read_bytes(), where=str(model.data_file)))
            path = self._transport.push(plain, name)
        return path, ["packed 4-bit weights were unpacked before they were sent: an app must do so when it loads them"]

    def _started(self, bundle: Bundle) -> Channel:
        folder = f"runner-{bundle.runtime.replace(' ', '-')}"
        for file in bundle.files:
            if f"{self._transport.folder}/{folder}/{file.name}" not in self._transport.pushed:
                self._transport.push(file, f"{folder}/{file.name}")
        if self._runner is not None:
            self._runner.close()
        self._bundle = bundle
        command = bundle.command(f"{self._transport.folder}/{folder}")
        what = f"native runner ({bundle.runtime}, {self._label})"
        self._runner = self._transport.start(command, environment=self._environment, what=what)
        return self._runner

    def _check_border(self, model: NativeModel, answer: Mapping[str, Any]) -> None:
        expected = [
            (info.dtype, math.prod(shape) * np.dtype(info.dtype).itemsize)
            for info, shape in zip(model.signature.inputs, self._shapes, strict=True)
        ]
        found = [(each["type"], each["bytes"]) for each in answer["inputs"]]
        outputs = [each["type"] for each in answer["outputs"]]
        if expected != found or [info.dtype for info in model.signature.outputs] != outputs:
            raise BadInput(
                f"{model.file}: on the device inputs are {found} and outputs {outputs} (type, bytes); it says "
                f"of itself {expected} and {[info.dtype for info in model.signature.outputs]}."
            )

    def _infer(self, *, inputs: str, outputs: str, timeout_s: float) -> dict[str, Any]:
        signature = self._loaded().signature
        where = self._original(inputs)
        try:
            with np.load(where, allow_pickle=False) as archive:
                arrays = {info.name: archive[info.name] for info in signature.inputs}
        except KeyError as error:
            raise BadInput(f"{where}: array {error} is missing.") from error
        except (OSError, ValueError) as error:
            raise BadInput(f"{where}: not an npz file of plain arrays ({error}).") from error
        count = min((len(array) for array in arrays.values()), default=0)
        sets = [{name: array[number] for name, array in arrays.items()} for number in range(count)]
        found = self.outputs(sets, timeout_s=timeout_s)
        with tempfile.TemporaryDirectory(prefix="edge-deploy-infer-") as folder:
            file = Path(folder, "outputs.npz")
            stacked = {info.name: np.stack([each[info.name] for each in found]) for info in signature.outputs}
            with file.open("wb") as opened:
                np.savez(opened, **stacked)  # type: ignore[arg-type]  # names of the signature
            self._transport.push(file, outputs.removeprefix(self._transport.folder + "/"))
        return {"samples": count}

    def _layers(self, *, timeout_s: float, **_wish: Any) -> dict[str, Any]:
        self._loaded()
        return {"layer_s": None}

    def _pin(self, *, timeout_s: float, cpus: list[int] | None = None, count: int = 1) -> dict[str, Any]:
        self._cpus = tuple(cpus) if cpus is not None else self._fastest(count, timeout_s)
        return {"cpus": list(self._cpus)}

    def _fastest(self, count: int, timeout_s: float) -> tuple[int, ...]:
        """The `count` processors of the highest clock, the last ones of equals; none where the device does not tell."""
        code, text = self._transport.complete(["sh", "-c", CLOCKS], timeout_s=timeout_s)
        clocks = sorted(((int(clock), int(cpu)) for cpu, clock in CLOCK.findall(text)), reverse=True)
        return tuple(sorted(cpu for _, cpu in clocks[:count])) if code == 0 else ()

    def _pass_on(self, request: Mapping[str, Any], *, timeout_s: float) -> Any:
        if self._runner is None and request["do"] == "state":
            return {"peak_rss_bytes": 0, "memory_peak": None, "load_average": []}
        self._loaded()
        return self._running().ask(request, timeout_s=timeout_s)

    def _push_sets(self, sets: Sequence[InputSet], file: Path, name: str) -> str:
        signature = self._model.signature if self._model is not None else None
        names = [info.name for info in signature.inputs] if signature is not None else list(sets[0])
        with file.open("wb") as opened:
            for values in sets:
                for each in names:
                    opened.write(np.ascontiguousarray(values[each]).tobytes())
        return self._transport.push(file, name)

    def _parsed(self, data: bytes, count: int) -> list[dict[str, np.ndarray]]:
        infos = self._loaded().signature.outputs
        size = sum(each["bytes"] for each in self._outputs)
        if len(data) != count * size:
            raise DeviceError(f"native runner: {len(data)} bytes of outputs came back, expected {count * size}.")
        found = []
        for number in range(count):
            at, row = number * size, {}
            for info, each in zip(infos, self._outputs, strict=True):
                kind, shape = np.dtype(each["type"]), tuple(int(length) for length in each["shape"])
                row[info.name] = np.frombuffer(data, kind, each["bytes"] // kind.itemsize, at).reshape(shape).copy()
                at += each["bytes"]
            found.append(row)
        return found

    def _name(self, name: str) -> str:
        self._files += 1
        return f"files/{self._token}-{self._files}-{name}"

    def _original(self, path: str) -> Path:
        if path not in self._transport.pushed:
            raise BadInput(f"{path}: was not pushed to the device.")
        return self._transport.pushed[path]

    def _loaded(self) -> NativeModel:
        if self._model is None:
            raise BadInput("worker: nothing is loaded yet.")
        return self._model

    def _running(self) -> Channel:
        if self._runner is None:
            raise BadInput("worker: nothing is loaded yet.")
        return self._runner


def _with_batch(signature: Signature, batch: int) -> Signature:
    """The signature with `batch` in the place of a dynamic one."""

    def fixed(info: TensorInfo) -> TensorInfo:
        is_dynamic = bool(info.shape) and info.shape[0] == -1
        return replace(info, shape=(batch, *info.shape[1:])) if is_dynamic else info

    return replace(signature, inputs=tuple(fixed(info) for info in signature.inputs))
