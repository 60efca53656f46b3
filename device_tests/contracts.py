"""How the device lab reaches a device: files go there, a worker runs there and answers, files come back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

__all__ = ["Channel", "Transport"]


class Channel(Protocol):
    """A running worker: one JSON object per request, one per answer."""

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
        """Start a worker, e.g. "device_tests.worker"."""

    def pull(self, name: str, destination: Path) -> None:
        """Bring a file of the run's folder back.

        Raises:
            DeviceError: There is no such file.
        """

    def close(self) -> None:
        """Remove what was pushed."""
