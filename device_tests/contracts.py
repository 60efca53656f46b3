"""How the device lab reaches a device: files go there, a worker runs there and answers, files come back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from edge_deploy.core.device import Device

__all__ = ["Channel", "ProgramTransport", "Transport", "TransportModule"]


class Channel(Protocol):
    """A running worker: one JSON object per request, one per answer.

    `request["do"]` is one of these, whatever end answers (Python worker, native runner, emulated board); paths are
    those of the device:

    | do | takes | answers |
    |---|---|---|
    | load | path, backend, signature, threads, kernels, seed, inputs, source | machine, load_s, kernels, batch, ... |
    | warm | rounds, runs, min_seconds | values_s, steady, values_per_round, calls_per_value |
    | measure | values_per_round, calls_per_value | values_s |
    | infer | inputs, outputs: paths of .npz, arrays [samples, ...] by name, read and written | samples |
    | layers | runs, repeats | layer_s, or None where nothing profiles |
    | state | | peak_rss_bytes, load_average |

    A device without a time of its own (an emulated board) refuses warm, measure and layers with a DeviceError, and its
    infer answers instructions, by_function, flash_bytes and ram_bytes too.
    """

    def ask(self, request: Mapping[str, Any], *, timeout_s: float) -> Any:
        """The worker's answer.

        Raises:
            EdgeDeployError: The one that the worker raised, rebuilt here.
            DeviceError: The worker died (names the signal) or gave no answer in time.
        """

    def close(self) -> None:
        """End the worker; safe to call twice, and after it died."""


class Transport(Protocol):
    """A way to one device. What was pushed is removed by `close`."""

    def push(self, file: Path, name: str, *, sha256: str | None = None) -> str:
        """Bring a file to the device and read it back there.

        Args:
            name: Path relative to the run's folder on the device.
            sha256: What the file must have; None takes the source's own.

        Returns:
            The path on the device.

        Raises:
            DeviceError: It cannot be written, or what arrived has another checksum.
        """

    def run(
        self, module: str, arguments: Sequence[str] = (), *, environment: Mapping[str, str] | None = None
    ) -> Channel:
        """Start a worker, e.g. "device_tests.worker"; a device without Python starts what answers in its place."""

    def pull(self, name: str, destination: Path) -> None:
        """Bring a file of the run's folder back.

        Raises:
            DeviceError: There is no such file.
        """

    def close(self) -> None:
        """Remove what was pushed."""


class ProgramTransport(Transport, Protocol):
    """A transport to a device that runs native programs, which speak the lines of a `Channel` on standard streams.

    Attributes:
        folder: The run's folder on the device.
        pushed: What came from where, by path on the device.
    """

    folder: str
    pushed: dict[str, Path]

    def start(
        self, command: Sequence[str], *, environment: Mapping[str, str] | None = None, what: str = "native runner"
    ) -> Channel:
        """Start a pushed program; `what` names it in errors.

        Raises:
            DeviceError: It cannot be started.
        """

    def complete(self, command: Sequence[str], *, timeout_s: float) -> tuple[int, str]:
        """Run a pushed program to its end: its exit code, and all that it printed.

        Raises:
            DeviceError: The device is gone, or the program did not end in time.
        """


class TransportModule(Protocol):
    """What a module of `device_tests.transports` offers; importing it is cheap.

    One whose devices have no time of their own says COUNTS_INSTRUCTIONS = True besides.

    Attributes:
        PREFIX: What a device string of this transport begins with, e.g. "ssh:"; the longest that fits is taken. Empty
            where only a device file leads here.
        ADDRESS: What follows it, for people: "user@host[:port]". In brackets where it may be left out, empty where
            there is nothing to say.
        EMULATED: Whether all devices behind it are: their times mean nothing, and reports say so.
    """

    PREFIX: str
    ADDRESS: str
    EMULATED: bool

    def describe(self, address: str) -> Device:
        """The device at this address, `transport` and `address` set; may ask the device.

        Raises:
            BadInput: No such address.
            DeviceError: It does not answer.
        """

    def connect(self, device: Device) -> Transport:
        """A transport to the device, at `device.address`.

        Raises:
            DeviceError: It cannot be reached.
        """
