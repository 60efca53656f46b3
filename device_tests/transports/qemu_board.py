"""An emulated Cortex-M board: a C project is pushed, built for it, run in qemu-system-arm, its outputs come back.

A board counts instructions and not seconds; requests for times are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from device_tests.boards.board import Board, find_board
from device_tests.boards.emulator import emulator_version, run_on_board
from device_tests.boards.firmware import COMPILER, require_program
from device_tests.transports.local import LocalTransport
from edge_deploy.core.device import Device
from edge_deploy.core.errors import BadInput, DeviceError, EdgeDeployError, ToolchainError, Unsupported

__all__ = [
    "ADDRESS",
    "COUNTS_INSTRUCTIONS",
    "EMULATED",
    "PREFIX",
    "BoardChannel",
    "BoardTransport",
    "connect",
    "describe",
]

PREFIX = "qemu:"
ADDRESS = "cortex-m3|m4|m7|m33|m55"
EMULATED = True
COUNTS_INSTRUCTIONS = True
# A program that hangs on a board would do so for ever.
LONGEST_RUN_S = 600.0


def describe(address: str) -> Device:
    """The emulated board of this core, e.g. "cortex-m4", with all the memory that is emulated.

    Raises:
        BadInput: No such board.
    """
    board = find_board(address)
    return Device(
        name=PREFIX + board.name,
        kind="emulated",
        isa=board.isa,
        cores=1,
        ram_bytes=board.ram_bytes,
        flash_bytes=board.flash_bytes,
        core=board.name,
        runtimes=("c-host",),
        transport="qemu-board",
        address=board.name,
    )


def connect(device: Device) -> BoardTransport:
    """A transport to the emulated board, with the flash and RAM of `device`.

    Raises:
        BadInput: No such board.
    """
    return BoardTransport(find_board(device.address), device)


class BoardTransport:
    """A fresh temporary folder stands for the flash; see `device_tests.contracts.Transport`.

    Args:
        device: Whose flash and RAM the program may take, as far as the board has that much.
    """

    def __init__(self, board: Board, device: Device) -> None:
        self._board = board
        self._device = device
        self._storage = LocalTransport()

    def push(self, file: Path, name: str, *, sha256: str | None = None) -> str:
        """See `device_tests.contracts.Transport`."""
        return self._storage.push(file, name, sha256=sha256)

    def run(
        self, module: str, arguments: Sequence[str] = (), *, environment: Mapping[str, str] | None = None
    ) -> BoardChannel:
        """A channel that builds and runs what was pushed; a board runs no Python, so `module` is not used."""
        return BoardChannel(self._board, self._device)

    def pull(self, name: str, destination: Path) -> None:
        """See `device_tests.contracts.Transport`."""
        self._storage.pull(name, destination)

    def close(self) -> None:
        """See `device_tests.contracts.Transport`."""
        self._storage.close()


class BoardChannel:
    """Answers load (path of a C project or its model.c), infer and state; see `device_tests.contracts.Channel`."""

    def __init__(self, board: Board, device: Device) -> None:
        self._board = board
        self._flash_bytes = min(device.flash_bytes or board.flash_bytes, board.flash_bytes)
        self._has_ram_bytes = min(device.arena_room_bytes, board.ram_bytes)
        self._project: Path | None = None
        self._ram_bytes = 0

    def ask(self, request: Mapping[str, Any], *, timeout_s: float) -> Any:
        """See `device_tests.contracts.Channel`."""
        known: dict[str, Callable[..., dict[str, Any]]] = {
            "load": self._load,
            "warm": self._no_times,
            "measure": self._no_times,
            "layers": self._no_times,
            "state": self._state,
            "infer": self._infer,
        }
        asked = request["do"]
        if asked not in known:
            raise BadInput(f"worker request {asked!r}: must be one of {', '.join(known)}.")
        rest = {key: value for key, value in request.items() if key != "do"}
        if asked == "infer":
            rest["timeout_s"] = min(timeout_s, LONGEST_RUN_S)
        try:
            return known[asked](**rest)
        except EdgeDeployError:
            raise
        except (TypeError, KeyError, ValueError, OSError) as error:
            raise ToolchainError(f"qemu:{self._board.name}: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        """See `device_tests.contracts.Channel`; no emulator outlives its request."""
        self._project = None

    def _load(
        self,
        *,
        path: str,
        backend: str | None = None,
        signature: str | None = None,
        threads: int = 1,
        kernels: str = "default",
        seed: int = 0,
        inputs: str | None = None,
        source: Sequence[object] = (),
    ) -> dict[str, Any]:
        require_program(COMPILER)
        model = Path(path) / "model.c" if Path(path).is_dir() else Path(path)
        if model.suffix != ".c" or not model.is_file():
            raise Unsupported(f"qemu:{self._board.name}: runs C projects only; convert with --to c, not {path}.")
        wishes = {
            "backend": (backend, (None, "c-host")),
            "threads": (threads, (1,)),
            "kernels": (kernels, ("default",)),
        }
        problems = [
            f"qemu:{self._board.name}: {name} = {given}: must be left out; a board runs generated C on one core."
            for name, (given, fine) in wishes.items()
            if given not in fine
        ]
        if problems:
            raise Unsupported(*problems)
        self._project = model.parent
        return {
            "kernels": f"generated C, emulated {self._board.name} (qemu)",
            "emulator": f"emulated by {emulator_version()} as {self._board.machine}",
        }

    def _infer(self, *, inputs: str, outputs: str, timeout_s: float) -> dict[str, Any]:
        from runtimes.formats.c_source import read_signatures

        if self._project is None:
            raise BadInput("worker: nothing is loaded yet.")
        (signature,) = read_signatures(self._project / "model.c")
        with np.load(inputs, allow_pickle=False) as archive:
            arrays = {info.name: archive[info.name] for info in signature.inputs}
        found = run_on_board(
            self._project,
            signature,
            self._board,
            arrays,
            flash_bytes=self._flash_bytes,
            ram_bytes=self._has_ram_bytes,
            timeout_s=timeout_s,
        )
        with Path(outputs).open("wb") as file:
            np.savez(file, **found.outputs)  # type: ignore[arg-type]  # names of the signature
        self._ram_bytes = found.ram_bytes
        return {
            "instructions": found.instructions,
            "by_function": found.by_function,
            "flash_bytes": found.flash_bytes,
            "ram_bytes": found.ram_bytes,
            "kernels": found.kernels,
        }

    def _state(self) -> dict[str, Any]:
        return {"peak_rss_bytes": self._ram_bytes, "load_average": 0.0}

    def _no_times(self, **_request: object) -> dict[str, Any]:
        raise DeviceError(
            f"qemu:{self._board.name}: an emulated board has no time of its own; ask it to infer, and count "
            "instructions."
        )
