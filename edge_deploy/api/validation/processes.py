"""The two processes of a validation, started, asked and ended; what a process prints when it fails is in the error."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge_deploy.core.errors import ToolchainError, error_from_json
from runtimes.shaping.quota import CpuQuota

__all__ = ["EdgeProcess", "cloud_process", "edge_process"]

END_S = 10.0
TAIL = 1500


@contextmanager
def cloud_process(
    halves: Path,
    quota: CpuQuota,
    *,
    host: str = "127.0.0.1",
    token_file: Path | None = None,
    inside: Sequence[str] = (),
) -> Iterator[tuple[str, int]]:
    """`edge-deploy serve` of the halves on a free port; its host and port.

    Args:
        inside: What the command is prefixed by, to run elsewhere.

    Raises:
        ToolchainError: It ended before it served.
    """
    command = [*inside, sys.executable, "-m", "edge_deploy.cli.main", "serve", str(halves)]
    command += ["--listen", f"{host}:0", "--batch", "1", "--warm", "--json"]
    command += [] if token_file is None else ["--token-file", str(token_file)]
    with _running(command, "the cloud's process", quota) as (process, errors):
        text = ""
        while True:
            line = process.stdout.readline()
            if not line:
                raise _died("the cloud's process", process, errors)
            text += line
            with contextlib.suppress(ValueError):
                told = json.loads(text)
                break
        where, _, port = told["address"].rpartition(":")
        yield where.strip("[]"), int(port)


class EdgeProcess:
    """Orders go in, answers come out; see `edge_deploy.api.validation.edge`."""

    def __init__(self, process: Any, errors: Any) -> None:
        self._process, self._errors = process, errors

    def ask(self, **order: Any) -> Any:
        """One order.

        Raises:
            EdgeDeployError: As it was raised there.
            ToolchainError: The process ended.
        """
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise _died("the edge's process", self._process, self._errors)
        told = json.loads(line)
        if "error" in told:
            raise error_from_json(told["error"])
        return told["answer"]


@contextmanager
def edge_process(given: dict[str, Any], quota: CpuQuota, *, inside: Sequence[str] = ()) -> Iterator[EdgeProcess]:
    """The edge, ready to be asked."""
    command = [*inside, sys.executable, "-m", "edge_deploy.api.validation.edge"]
    with _running(command, "the edge's process", quota) as (process, errors):
        edge = EdgeProcess(process, errors)
        edge.ask(**given)
        yield edge


@contextmanager
def _running(command: list[str], name: str, quota: CpuQuota) -> Iterator[tuple[Any, Any]]:
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True)
        try:
            quota.add(process.pid)
            yield process, errors
        finally:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()  # type: ignore[union-attr]  # it is a pipe
            process.terminate()
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()  # type: ignore[union-attr]  # it is a pipe


def _died(name: str, process: Any, errors: Any) -> ToolchainError:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(END_S)
    errors.seek(0)
    return ToolchainError(f"{name} ended with {process.returncode}: {errors.read()[-TAIL:].strip()}")
