"""The device end of the adb protocol, for the real adb client: shell, push and pull in a folder that is its storage.

Written from the protocol's description in AOSP (packages/modules/adb: protocol.txt, SYNC.TXT). Not there: keys, TLS,
and everything that only a phone has.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from device_tests.loopback.android_root import shell_command

__all__ = ["Adbd"]

BANNER = (
    b"device::ro.product.name=loopback;ro.product.model=Loopback;ro.product.device=loopback;features=shell_v2,cmd\0"
)
VERSION = 0x01000001  # from here on nobody looks at checksums
MOST_BYTES = 256 * 1024
COMMANDS = {name: int.from_bytes(name, "little") for name in (b"CNXN", b"OPEN", b"OKAY", b"WRTE", b"CLSE")}
CNXN, OPEN, OKAY, WRTE, CLSE = COMMANDS.values()
HEAD = struct.Struct("<6I")
STDIN, STDOUT, STDERR, EXIT, END_OF_INPUT = range(5)


class Gone(Exception):
    """The other end closed the stream."""


class Stream:
    """One of the streams of a connection."""

    def __init__(self, connection: Connection, own: int, other: int) -> None:
        self.own, self.other = own, other
        self._connection = connection
        self._received: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._granted = asyncio.Semaphore(0)
        self._rest = b""
        self.is_open = True

    def take(self, data: bytes | None) -> None:
        """Data of the other end; None when it closed."""
        self._received.put_nowait(data)

    def grant(self) -> None:
        """The other end took what we wrote last."""
        self._granted.release()

    async def some(self) -> bytes:
        """What comes next, at least a byte."""
        if self._rest:
            data, self._rest = self._rest, b""
            return data
        received = await self._received.get()
        if received is None:
            raise Gone
        await self._connection.send(OKAY, self.own, self.other)
        return received or await self.some()

    async def exactly(self, count: int) -> bytes:
        """So many bytes."""
        data = b""
        while len(data) < count:
            data += await self.some()
        self._rest = data[count:] + self._rest
        return data[:count]

    async def write(self, data: bytes) -> None:
        """Send, one packet at a time, each granted."""
        for at in range(0, len(data), self._connection.most):
            if not self.is_open:
                raise Gone
            await self._connection.send(WRTE, self.own, self.other, data[at : at + self._connection.most])
            await self._granted.acquire()

    async def close(self) -> None:
        """Tell the other end, once."""
        if self.is_open:
            self.is_open = False
            await self._connection.send(CLSE, self.own, self.other)

    def end(self) -> None:
        """The other end is gone."""
        self.is_open = False
        self._received.put_nowait(None)
        self._granted.release()


class Connection:
    """One adb server that is connected."""

    def __init__(self, device: Adbd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.most = MOST_BYTES
        self.device = device
        self._reader, self._writer = reader, writer
        self._streams: dict[int, Stream] = {}
        self._count = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def send(self, command: int, first: int, second: int, data: bytes = b"") -> None:
        """One packet."""
        head = HEAD.pack(command, first, second, len(data), sum(data) & 0xFFFFFFFF, command ^ 0xFFFFFFFF)
        self._writer.write(head + data)
        await self._writer.drain()

    async def serve(self) -> None:
        """Until the connection ends."""
        try:
            while True:
                command, first, second, size, _, _ = HEAD.unpack(await self._reader.readexactly(HEAD.size))
                data = await self._reader.readexactly(size) if size else b""
                await self._packet(command, first, second, data)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            for stream in self._streams.values():
                stream.end()
            self._writer.close()

    def cut(self) -> None:
        """End the connection without a word."""
        self._writer.transport.abort()

    async def _packet(self, command: int, first: int, second: int, data: bytes) -> None:
        if command == CNXN:
            self.most = min(MOST_BYTES, second)
            await self.send(CNXN, min(first, VERSION), MOST_BYTES, BANNER)
        elif command == OPEN:
            self._count += 1
            stream = Stream(self, self._count, first)
            self._streams[self._count] = stream
            task = asyncio.ensure_future(self._service(stream, data.rstrip(b"\0").decode()))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif second in self._streams:
            stream = self._streams[second]
            if command == WRTE:
                stream.take(data)
            elif command == OKAY:
                stream.grant()
            elif command == CLSE:
                await stream.close()
                stream.end()
                del self._streams[second]

    async def _service(self, stream: Stream, name: str) -> None:
        kind, _, rest = name.partition(":")
        words = kind.split(",")
        with contextlib.suppress(Gone, OSError):
            if words[0] in ("shell", "exec", "sync"):
                await self.send(OKAY, stream.own, stream.other)
                if words[0] == "sync":
                    await self._sync(stream)
                else:
                    await self._shell(stream, rest, framed="v2" in words)
            await stream.close()

    async def _shell(self, stream: Stream, line: str, *, framed: bool) -> None:
        process = await asyncio.create_subprocess_exec(
            *shell_command(self.device.root, line, emulator=self.device.emulator),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if framed else subprocess.STDOUT,
            start_new_session=True,
        )

        async def out(source: asyncio.StreamReader | None, number: int) -> None:
            while source is not None and (data := await source.read(1 << 15)):
                await stream.write(struct.pack("<BI", number, len(data)) + data if framed else data)

        async def into() -> None:
            assert process.stdin is not None
            try:
                while True:
                    number, size = struct.unpack("<BI", await stream.exactly(5)) if framed else (STDIN, 0)
                    data = await stream.exactly(size) if framed else await stream.some()
                    if number == STDIN:
                        process.stdin.write(data)
                        await process.stdin.drain()
                    elif number == END_OF_INPUT:
                        break
            except Gone:  # nobody listens any more
                _kill(process)
            except OSError:
                return
            finally:
                process.stdin.close()

        feeding = asyncio.ensure_future(into())
        try:
            await asyncio.gather(out(process.stdout, STDOUT), out(process.stderr, STDERR))
            code = await process.wait()
            if framed:
                await stream.write(struct.pack("<BIB", EXIT, 1, code & 0xFF))
        finally:
            _kill(process)
            await process.wait()
            feeding.cancel()
            for source in (process.stdout, process.stderr):
                if source is not None:
                    await source.read()  # to its end, which closes the pipe

    async def _sync(self, stream: Stream) -> None:
        while True:
            kind, size = struct.unpack("<4sI", await stream.exactly(8))
            words = await stream.exactly(size) if kind != b"QUIT" else b""
            if kind == b"QUIT":
                return
            try:
                if kind == b"STAT":
                    await stream.write(self._stat(self._path(words)))
                elif kind == b"SEND":
                    await self._receive(stream, words)
                elif kind == b"RECV":
                    with self._path(words).open("rb") as file:
                        while data := file.read(1 << 16):
                            await stream.write(b"DATA" + struct.pack("<I", len(data)) + data)
                    await stream.write(b"DONE" + bytes(4))
                else:
                    raise OSError(errno.EINVAL, f"unknown request {kind!r}")
            except OSError as error:
                text = (error.strerror or str(error)).encode()
                await stream.write(b"FAIL" + struct.pack("<I", len(text)) + text)

    async def _receive(self, stream: Stream, words: bytes) -> None:
        name, _, mode = words.rpartition(b",")
        path = self._path(name)
        problem: OSError | None = None
        with contextlib.ExitStack() as stack:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context(path.open("wb"))
            except OSError as error:
                problem = error
            while True:
                kind, size = struct.unpack("<4sI", await stream.exactly(8))
                if kind == b"DONE":
                    break
                data = await stream.exactly(size)
                if self.device.takes(len(data)):
                    self.cut()
                    raise Gone
                if problem is None:
                    try:
                        self.device.check_room(len(data))
                        file.write(data)
                    except OSError as error:
                        problem = error
        if problem is not None:
            raise problem
        path.chmod(int(mode) & 0o777 | 0o600)
        await stream.write(b"OKAY" + bytes(4))

    def _path(self, name: bytes) -> Path:
        return Path(str(self.device.root) + os.path.normpath("/" + name.decode()))

    @staticmethod
    def _stat(path: Path) -> bytes:
        try:
            found = path.lstat()
        except OSError:
            return b"STAT" + bytes(12)
        return b"STAT" + struct.pack("<3I", found.st_mode, found.st_size & 0xFFFFFFFF, int(found.st_mtime))


def _kill(process: asyncio.subprocess.Process) -> None:
    """The process and what it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, 9)


class Adbd:
    """A device on a free port of the loopback, served by a thread.

    Args:
        root: Folder that stands for its file system.
        room_bytes: Of its storage for pushed files; None for no limit.
        vanishes_after_bytes: So much may be pushed before the connection is cut; None for never.
        emulator: Of its processor; see `device_tests.loopback.android_root.add_emulator`.
    """

    def __init__(
        self,
        root: Path,
        *,
        room_bytes: int | None = None,
        vanishes_after_bytes: int | None = None,
        emulator: Path | None = None,
    ) -> None:
        self.root = root
        self.emulator = emulator
        self.port = 0
        self._room = room_bytes
        self._patience = vanishes_after_bytes
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def takes(self, count: int) -> bool:
        """Whether it vanishes when so much more arrives."""
        if self._patience is None:
            return False
        self._patience -= count
        return self._patience < 0

    def check_room(self, count: int) -> None:
        """Raises: OSError: The storage is full."""
        if self._room is not None:
            self._room -= count
            if self._room < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @contextlib.contextmanager
    def running(self) -> Iterator[Adbd]:
        """Serve until the block ends."""
        self._thread.start()
        self._ready.wait(60)
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(60)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        connections: set[Connection] = set()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = Connection(self, reader, writer)
            connections.add(connection)
            await connection.serve()
            connections.discard(connection)

        server = self._loop.run_until_complete(asyncio.start_server(connected, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for connection in list(connections):
            connection.cut()
        pending = asyncio.all_tasks(self._loop)
        for task in pending:
            task.cancel()
        if pending:
            self._loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        for _ in range(3):  # so that pipes that were told to close do so
            self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()
