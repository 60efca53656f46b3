"""Run a function in a child process: a crash, noise on stdout or a leak of a third-party library stays there."""

from __future__ import annotations

import errno
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_deploy.core.errors import BadInput, EdgeDeployError, ToolchainError, error_from_json, error_to_json
from edge_deploy.core.serde import to_json
from edge_deploy.core.threads import QUIET_THREADS

__all__ = ["run_in_child"]

TAIL_CHARACTERS = 2000


def run_in_child(
    function: str,
    arguments: Mapping[str, Any],
    *,
    stage: str,
    timeout_s: float = 3600.0,
    environment: Mapping[str, str] | None = None,
) -> Any:
    """Call `function` with `arguments` in a fresh interpreter and return what it returned.

    Args:
        function: "package.module:name"; takes keyword arguments and returns a value, both of plain JSON values
            (see `edge_deploy.core.serde` for dataclasses); large data travels in files.
        stage: What the user should read when it fails, e.g. "capture of resnet8.h5".
        environment: Variables to add to the child's environment.

    Raises:
        EdgeDeployError: The one the function raised, rebuilt here.
        ToolchainError: The child died, ran too long, or raised anything else.
    """
    with tempfile.TemporaryDirectory(prefix="edge-deploy-child-") as folder:
        request, answer, log = Path(folder, "request.json"), Path(folder, "answer.json"), Path(folder, "log.txt")
        request.write_text(json.dumps({"function": function, "arguments": to_json(dict(arguments))}), encoding="utf-8")
        command = [sys.executable, "-m", "edge_deploy.core.child", str(request), str(answer)]
        paths = [path for path in sys.path if path]
        child_environment = {**QUIET_THREADS, **os.environ, **(environment or {}), "PYTHONPATH": os.pathsep.join(paths)}
        with log.open("wb") as sink:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env=child_environment,
                start_new_session=True,
            )
            try:
                code = process.wait(timeout_s)
            except subprocess.TimeoutExpired as error:
                raise ToolchainError(f"{stage}: gave no answer within {timeout_s:.0f} s.") from error
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        if not answer.exists():
            how = f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            tail = log.read_text(encoding="utf-8", errors="replace")[-TAIL_CHARACTERS:].strip()
            raise ToolchainError(f"{stage}: the child process {how}. Its last words:\n{tail}")
        result = json.loads(answer.read_text(encoding="utf-8"))
    if "error" in result:
        raise error_from_json(result["error"])
    if "traceback" in result:
        raise ToolchainError(f"{stage}: {result['summary']}") from EdgeDeployError(result["traceback"])
    return result["value"]


def _serve(request: Path, answer: Path) -> None:
    data = json.loads(request.read_text(encoding="utf-8"))
    module, name = data["function"].split(":")
    result: dict[str, Any]
    try:
        value = getattr(importlib.import_module(module), name)(**data["arguments"])
        result = {"value": to_json(value)}
    except EdgeDeployError as error:
        result = {"error": error_to_json(error)}
    except OSError as error:
        result = _disk_or_defect(error)
    except Exception as error:  # noqa: BLE001  # whatever a third-party library raises becomes our ToolchainError in the parent
        result = _defect(error)
    partial = answer.with_suffix(".partial")
    partial.write_text(json.dumps(result), encoding="utf-8")
    partial.replace(answer)


def _disk_or_defect(error: OSError) -> dict[str, Any]:
    """A full disk is the user's to mend; any other error of the file system is unexpected here."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS):
        return _defect(error)
    place = error.filename or "the output folder"
    return {"error": error_to_json(BadInput(f"{place}: {error.strerror}; free some space or choose another --out."))}


def _defect(error: Exception) -> dict[str, Any]:
    text = str(error).strip()
    return {"traceback": traceback.format_exc(), "summary": f"{type(error).__name__}: {text[-TAIL_CHARACTERS:]}"}


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), Path(sys.argv[2]))
