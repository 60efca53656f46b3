"""Run functions in a child process: a crash, noise on stdout or a leak of a third-party library stays there."""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_deploy.core.errors import BadInput, EdgeDeployError, ToolchainError, error_from_json, error_to_json
from edge_deploy.core.serde import to_json
from edge_deploy.core.threads import QUIET_THREADS

__all__ = ["Child", "run_in_child"]

TAIL_CHARACTERS = 2000
LONGEST_LOOK_S = 0.02  # between two looks for an answer
PATIENCE_S = 5.0  # libraries that do not end in time are ended


def run_in_child(
    function: str,
    arguments: Mapping[str, Any],
    *,
    stage: str,
    timeout_s: float = 3600.0,
    environment: Mapping[str, str] | None = None,
    child: Child | None = None,
) -> Any:
    """Call `function` with `arguments` in a fresh interpreter and return what it returned.

    Args:
        function: "package.module:name"; takes keyword arguments and returns a value, both of plain JSON values
            (see `edge_deploy.core.serde` for dataclasses); large data travels in files.
        stage: What the user should read when it fails, e.g. "capture of resnet8.h5".
        environment: Variables to add to the child's environment.
        child: An interpreter that runs already, to be used instead of a fresh one; it has its own environment.

    Raises:
        EdgeDeployError: The one the function raised, rebuilt here.
        ToolchainError: The child died, ran too long, or raised anything else.
    """
    if child is not None:
        return child.call(function, arguments, stage=stage, timeout_s=timeout_s)
    with Child(environment=environment) as fresh:
        return fresh.call(function, arguments, stage=stage, timeout_s=timeout_s)


class Child:
    """An interpreter that answers one call after another: what one call has imported serves the next.

    It starts at once and imports `warm` while its owner does something else. It ends with the `with` block, also in the
    middle of a call.
    """

    def __init__(self, *, environment: Mapping[str, str] | None = None, warm: Sequence[str] = ()) -> None:
        """Start it.

        Args:
            environment: Variables to add to its environment.
            warm: Modules to import before the first call; those that cannot be are left to the call that needs them.
        """
        self._files = tempfile.TemporaryDirectory(prefix="edge-deploy-child-", ignore_cleanup_errors=True)
        self._log = Path(self._files.name, "log.txt")
        self._calls = 0
        self._is_busy = bool(warm)  # with imports that nobody waits for
        self._is_closed = False
        paths = [path for path in sys.path if path]
        with self._log.open("wb") as sink:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "edge_deploy.core.child", *warm],
                stdin=subprocess.PIPE,
                stdout=sink,
                stderr=sink,
                env={**QUIET_THREADS, **os.environ, **(environment or {}), "PYTHONPATH": os.pathsep.join(paths)},
                start_new_session=True,
            )

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, function: str, arguments: Mapping[str, Any], *, stage: str, timeout_s: float = 3600.0) -> Any:
        """See `run_in_child`."""
        return self.begin(function, arguments, stage=stage, timeout_s=timeout_s)()

    def begin(
        self, function: str, arguments: Mapping[str, Any], *, stage: str, timeout_s: float = 3600.0
    ) -> Callable[[], Any]:
        """`call` in two halves: the child works from now on, and what this returns waits for its answer.

        One call at a time: its answer is to be had before the next one begins.
        """
        self._calls += 1
        self._is_busy = True
        request, answer = (Path(self._files.name, f"{word}-{self._calls}.json") for word in ("request", "answer"))
        latest = time.monotonic() + timeout_s
        with self._unless_ended(stage):
            text = json.dumps({"function": function, "arguments": to_json(dict(arguments))})
            request.write_text(text, encoding="utf-8")
            assert self._process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # it has died; how is told with its answer
                self._process.stdin.write(f"{json.dumps([str(request), str(answer)])}\n".encode())
                self._process.stdin.flush()

        def wait() -> Any:
            with self._unless_ended(stage):
                result = self._answer(answer, stage, timeout_s, latest)
            self._is_busy = False
            if "error" in result:
                raise error_from_json(result["error"])
            if "traceback" in result:
                raise ToolchainError(f"{stage}: {result['summary']}") from EdgeDeployError(result["traceback"])
            return result["value"]

        return wait

    @contextlib.contextmanager
    def _unless_ended(self, stage: str) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            if self._is_closed:  # by another thread, which takes the files away too
                raise ToolchainError(f"{stage}: was ended.") from error
            raise

    def _answer(self, answer: Path, stage: str, timeout_s: float, latest: float) -> dict[str, Any]:
        code = self._wait(answer, stage, timeout_s, latest)
        if code is not None and not answer.exists():
            how = f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            tail = self._log.read_text(encoding="utf-8", errors="replace")[-TAIL_CHARACTERS:].strip()
            raise ToolchainError(f"{stage}: the child process {how}. Its last words:\n{tail}")
        result: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
        return result

    def _wait(self, answer: Path, stage: str, timeout_s: float, latest: float) -> int | None:
        """The exit code when it ended before or with its answer; None while it runs on."""
        look_s = 0.0005
        while (code := self._process.poll()) is None and not answer.exists():
            if time.monotonic() > latest:
                self.close()
                raise ToolchainError(f"{stage}: gave no answer within {timeout_s:.0f} s.")
            time.sleep(look_s)
            look_s = min(2 * look_s, LONGEST_LOOK_S)
        return code

    def close(self) -> None:
        """End it: at once in the middle of a call, else as interpreters end, in a few seconds at most."""
        self._is_closed = True
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        if not self._is_busy:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(PATIENCE_S)
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._files.cleanup()


def _serve_all(warm: Sequence[str]) -> None:
    """Answer requests, each a line with the paths of request and answer, until the owner is gone."""
    # Whatever reads its standard input, or starts a process that does, must not take our requests.
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    is_busy = threading.Event()
    if hasattr(select, "poll"):
        threading.Thread(target=_end_with_owner, args=(requests.fileno(), is_busy), daemon=True).start()
    for name in warm:
        with contextlib.suppress(Exception):  # the call that needs the module says what is wrong with it
            importlib.import_module(name)
    for line in requests:
        request, answer = json.loads(line)
        is_busy.set()
        _serve(Path(request), Path(answer))
        is_busy.clear()


def _end_with_owner(requests: int, is_busy: threading.Event) -> None:
    """End this process, and what it has started, in the middle of a call whose owner was killed: nobody would read it.

    Otherwise it would go on writing files that the owner's successor writes too.
    """
    poller = select.poll()
    poller.register(requests, 0)  # that the other end is gone is told without being asked for
    poller.poll()
    is_busy.wait()
    os.killpg(0, signal.SIGKILL)


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
    _serve_all(sys.argv[1:])
