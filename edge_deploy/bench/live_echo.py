"""A bare gRPC server that answers every message with as many zeros as it was told: what the live loop is held against.

`python -m edge_deploy.bench.live_echo BYTES` says its port on stdout and ends with its stdin.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from edge_deploy.core.require import require

__all__ = ["METHOD", "STREAM", "main"]

METHOD, STREAM = "/echo/Echo", "/echo/Stream"


def main() -> None:
    """Serve until stdin ends."""
    asyncio.run(_serve(bytes(int(sys.argv[1]))))


async def _serve(answer: bytes) -> None:
    grpc = require("grpc", extra="serve")

    async def echo(request: bytes, context: Any) -> bytes:
        return answer

    async def echo_each(requests: Any, context: Any) -> None:
        while await context.read() is not grpc.aio.EOF:
            await context.write(answer)

    server = grpc.aio.server()
    handlers = {
        "Echo": grpc.unary_unary_rpc_method_handler(echo),
        "Stream": grpc.stream_stream_rpc_method_handler(echo_each),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("echo", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    main()
