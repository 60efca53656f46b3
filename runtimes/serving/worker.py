"""One server process: told what to serve on stdin, says on stdout where it listens, drains on SIGTERM.

`python -m runtimes.serving.worker`; it also stops when its stdin ends, so that it never outlives its parent.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
import threading
from dataclasses import replace

from edge_deploy.core.errors import EdgeDeployError, error_to_json
from edge_deploy.core.serde import loads
from edge_deploy.core.threads import QUIET_THREADS
from runtimes.serving.open_files import allow_open_files
from runtimes.serving.server import Server, Serving

__all__ = ["main"]

LOOK_S = 1.0
STUCK = 70  # exit code: as sysexits.h calls an error inside a program


def main() -> int:
    """Serve until told to stop; returns the exit code."""
    for name, value in QUIET_THREADS.items():
        os.environ.setdefault(name, value)
    serving = loads(Serving, sys.stdin.readline(), where="what the worker was told")
    # Rather fewer connections than a process that can open no file any more.
    room = max(1, allow_open_files(serving.limits.connections))
    serving = replace(serving, limits=replace(serving.limits, connections=room))
    try:
        code = asyncio.run(_serve(serving))
    except EdgeDeployError as error:
        _say({"error": error_to_json(error)})
        return error.exit_code
    return code


async def _serve(serving: Serving) -> int:
    loop, told_to_stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told_to_stop.set)
    server = Server(serving)
    await server.start()
    # What is there stays: looking through it again and again would only put off the rest, which requests that fail
    # leave behind in cycles.
    gc.collect()
    gc.freeze()
    _say({"port": server.port})
    threading.Thread(target=_until_parent_ends, args=(loop, told_to_stop), daemon=True).start()
    watching = asyncio.ensure_future(_until_stuck(server))
    stopping = asyncio.ensure_future(told_to_stop.wait())
    await asyncio.wait((watching, stopping), return_when=asyncio.FIRST_COMPLETED)
    if not watching.done():
        watching.cancel()
        await server.stop()
        return 0
    # A runtime that hangs cannot be stopped from outside its thread; the parent starts another process.
    sys.stderr.write("serve: an inference does not end; this worker gives up.\n")
    sys.stderr.flush()
    return STUCK


async def _until_stuck(server: Server) -> None:
    while not server.is_stuck():
        await asyncio.sleep(LOOK_S)


def _until_parent_ends(loop: asyncio.AbstractEventLoop, told_to_stop: asyncio.Event) -> None:
    os.read(sys.stdin.fileno(), 1)
    if not loop.is_closed():
        loop.call_soon_threadsafe(told_to_stop.set)


def _say(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    # Not sys.exit: interpreters of models may end a process in an orderly way only for so long.
    code = main()
    sys.stdout.flush()
    os._exit(code)
