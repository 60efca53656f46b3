"""MLPerf Tiny's line protocol over a serial port: commands end in '%', answers are lines, the last one is m-ready."""

from __future__ import annotations

import os
import re
import select
import termios
import time
from pathlib import Path
from types import TracebackType

from edge_deploy.core.errors import BadInput, DeviceError

__all__ = ["BAUD", "SerialLine"]

BAUD = 115200
READY = "m-ready"
CHUNK_BYTES = 31  # the reference firmware keeps 80 characters of a command
COMMAND_S = 20.0
PATIENCE_S = 3.0
QUIET_S = 0.2
ERROR = re.compile(r"e-\[(.*)\]")


class _Silence(DeviceError):
    """Nothing came in time."""


class SerialLine:
    """An open port of a board that speaks the protocol.

    Args:
        path: e.g. "/dev/ttyACM0", or the end of a pseudo terminal.

    Attributes:
        name: What the board calls itself.

    Raises:
        BadInput: There is no such port, or it has no such speed.
        DeviceError: It cannot be opened, or nothing answers there.
    """

    def __init__(self, path: str, *, baud: int = BAUD) -> None:
        self._where = f"serial:{path}"
        speed = getattr(termios, f"B{baud}", None)
        if speed is None:
            raise BadInput(f"{self._where}: {baud} baud: must be a standard speed, e.g. {BAUD}.")
        try:
            self._file = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        except OSError as error:
            hint = "; plug the board in, or look for its port in /dev" if not Path(path).exists() else ""
            raise DeviceError(f"{self._where}: cannot be opened ({error.strerror}){hint}.") from error
        try:
            _make_raw(self._file, speed)
            termios.tcflush(self._file, termios.TCIOFLUSH)
        except termios.error as error:
            os.close(self._file)
            raise BadInput(f"{self._where}: is no terminal ({error.args[-1]}); give the port of a board.") from error
        self._rest = b""
        try:
            self.name = self._greet()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> SerialLine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the port; safe to call twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def ask(self, command: str, *, timeout_s: float = COMMAND_S) -> list[str]:
        """The lines that answer a command, without the last m-ready.

        Raises:
            DeviceError: The board says that something is wrong, is gone, or gives no answer in time.
        """
        deadline = time.monotonic() + timeout_s
        self._write(f"{command}%".encode(), deadline, timeout_s)
        lines: list[str] = []
        while True:
            line = self._line(deadline, timeout_s)
            if line == READY:
                break
            if line:
                lines.append(line)
        for line in lines:
            said = ERROR.match(line)
            if said:
                raise DeviceError(f"{self._where}: {command.partition(' ')[0]}: the board says: {said[1]}")
        return lines

    def send_input(self, data: bytes) -> None:
        """Load the bytes of an input.

        Raises:
            DeviceError: The board takes another number of bytes, or is gone.
        """
        self.ask(f"db load {len(data)}")
        said: list[str] = []
        for start in range(0, len(data), CHUNK_BYTES):
            said = self.ask(f"db {data[start : start + CHUNK_BYTES].hex()}")
        if "m-load-done" not in said:
            raise DeviceError(f"{self._where}: did not say that it had all {len(data)} bytes of input.")

    def infer(self, count: int, *, warm_ups: int = 0, timeout_s: float) -> tuple[float, list[float]]:
        """Seconds that `count` inferences took by the board's own clock, and the values that it gives as results.

        Raises:
            DeviceError: As `ask`; or the answer is not the protocol's.
        """
        lines = self.ask(f"infer {count} {warm_ups}", timeout_s=timeout_s)
        text = "\n".join(lines)
        laps = [int(number) for number in re.findall(r"m-lap-us-(\d+)", text)]
        results = re.search(r"m-results-\[([^\]]*)\]", text)
        if len(laps) != 2 or results is None:
            raise DeviceError(f"{self._where}: infer: two times and results must come back, found: {text[-300:]}")
        values = [float(word) for word in results[1].split(",") if word.strip()]
        # The counter of many boards has 32 bits.
        return ((laps[1] - laps[0]) % (1 << 32)) * 1e-6, values

    def _greet(self) -> str:
        """The board's name. Opening a port resets many boards, which then lose what they are asked: so ask again."""
        deadline = time.monotonic() + COMMAND_S
        while True:
            self._write(b"name%", deadline, COMMAND_S)
            until = min(deadline, time.monotonic() + PATIENCE_S)
            found = ""
            try:
                while not found:
                    line = self._line(until, COMMAND_S)
                    found = line if line.startswith("m-name-") else ""
                while True:  # also what was asked twice, or was said before
                    self._line(time.monotonic() + QUIET_S, COMMAND_S)
            except _Silence:
                if found:
                    return found.partition("[")[2].rstrip("]") or found.removeprefix("m-name-")
                if time.monotonic() >= deadline:
                    raise

    def _write(self, data: bytes, deadline: float, timeout_s: float) -> None:
        while data:
            self._wait(deadline, timeout_s, writing=True)
            try:
                data = data[os.write(self._file, data) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise DeviceError(f"{self._where}: the board is gone ({error.strerror}).") from error

    def _line(self, deadline: float, timeout_s: float) -> str:
        while b"\n" not in self._rest:
            self._wait(deadline, timeout_s, writing=False)
            try:
                data = os.read(self._file, 4096)
            except BlockingIOError:
                continue
            except OSError as error:  # what a pseudo terminal says when its other end closes
                raise DeviceError(f"{self._where}: the board is gone ({error.strerror}).") from error
            if not data:
                raise DeviceError(f"{self._where}: the board is gone.")
            self._rest += data
        line, self._rest = self._rest.split(b"\n", 1)
        return line.decode("ascii", errors="replace").strip()

    def _wait(self, deadline: float, timeout_s: float, *, writing: bool) -> None:
        left = max(0.0, deadline - time.monotonic())
        reading, ready, _ = select.select([] if writing else [self._file], [self._file] if writing else [], [], left)
        if not reading and not ready:
            raise _Silence(
                f"{self._where}: gave no answer within {timeout_s:.0f} s; does its firmware speak MLPerf Tiny's "
                "protocol, at this speed?"
            )


def _make_raw(file: int, speed: int) -> None:
    """Bytes as they are: 8 bits, no echo, no translation, no flow control."""
    attributes = termios.tcgetattr(file)
    attributes[0] = termios.IGNPAR
    attributes[1] = 0
    attributes[2] = termios.CS8 | termios.CREAD | termios.CLOCAL
    attributes[3] = 0
    attributes[4] = attributes[5] = speed
    attributes[6][termios.VMIN], attributes[6][termios.VTIME] = 0, 0
    termios.tcsetattr(file, termios.TCSANOW, attributes)
