"""Two network namespaces with a link in user space between them: packets, not connections, are shaped. Needs root.

Each namespace gets a TUN device; a thread takes packets from one, holds them as the link says and puts them into the
other. So TCP is what it is on a real link: headers count, windows grow, full queues drop. netem is not needed.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import heapq
import os
import select
import shutil
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from edge_deploy.core.errors import DeviceError
from runtimes.shaping.lane import Lane
from runtimes.shaping.link import ShapedLink

__all__ = ["TunLink", "can_make_tun"]

T = TypeVar("T")
_NEW_NET, _SET_INTERFACE, _TUN_WITHOUT_HEADER = 0x40000000, 0x400454CA, 0x0001 | 0x1000
_DEVICE = Path("/dev/net/tun")
_NAMESPACES = Path("/var/run/netns")
MTU = 1400
MOST_PACKET = 65535
# As much as a home router's queue holds; what comes beyond is dropped, and TCP slows down.
QUEUE_BYTES = 256 * 1024
AT_ONCE = 64
LONGEST_WAIT_S = 0.5
SETTINGS = {"net.ipv4.tcp_slow_start_after_idle": "0", "net.ipv4.tcp_no_metrics_save": "1"}


def can_make_tun() -> str:
    """Why no such link can be made here; empty where one can."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "not root"
    if shutil.which("ip") is None:
        return "the program `ip` is not installed"
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        return f"{_DEVICE} is not there"
    return ""


class TunLink:
    """Two namespaces, `edge` and `cloud`, and the link between them; use it in a `with` block.

    Args:
        link: What to follow, from the moment of making.

    Attributes:
        edge, cloud: Names of the namespaces: prefix commands by `inside(name)`.
        cloud_address: Of the cloud's end, seen from the edge.

    Raises:
        DeviceError: The namespaces or devices cannot be made.
    """

    cloud_address = "10.213.77.2"
    edge_address = "10.213.77.1"

    def __init__(self, link: ShapedLink) -> None:
        reason = can_make_tun()
        if reason:
            raise DeviceError(f"TUN link: {reason}; use the TCP proxy.")
        own = f"{os.getpid()}-{time.monotonic_ns() % 10**9}"
        self.edge, self.cloud = f"edge-{own}", f"cloud-{own}"
        self._fds: list[int] = []
        self._stop_read, self._stop_write = os.pipe()
        self._lock = threading.Lock()
        self._counts = {"up": 0, "down": 0, "dropped": 0}
        self._thread: threading.Thread | None = None
        try:
            for name, address in ((self.edge, self.edge_address), (self.cloud, self.cloud_address)):
                _ip("netns", "add", name)
                self._fds.append(self.within(name, _open_tun))
                _ip("-n", name, "addr", "add", f"{address}/30", "dev", "link0")
                _ip("-n", name, "link", "set", "link0", "mtu", str(MTU), "up")
                _ip("-n", name, "link", "set", "lo", "up")
                self._tune(name)
        except BaseException:
            self.close()
            raise
        now = time.monotonic()
        self._lanes = {"up": Lane(link, "up", now_s=now), "down": Lane(link, "down", now_s=now)}
        self._thread = threading.Thread(target=self._carry, name="tun-link", daemon=True)
        self._thread.start()

    @property
    def counts(self) -> dict[str, int]:
        """Bytes of packets delivered "up" and "down", headers included, and packets "dropped"."""
        return dict(self._counts)

    def follow(self, link: ShapedLink) -> None:
        """Follow another link from now on."""
        now = time.monotonic()
        with self._lock:
            for lane in self._lanes.values():
                lane.follow(link, now_s=now)
        os.write(self._stop_write, b"w")  # look at the clock again

    def inside(self, name: str) -> list[str]:
        """What a command is prefixed by to run in a namespace."""
        return ["ip", "netns", "exec", name]

    def within(self, name: str, act: Callable[[], T]) -> T:
        """Call `act` in a thread that is in the namespace: sockets that it makes stay there."""
        found: list[T] = []
        failed: list[BaseException] = []

        def run() -> None:
            try:
                _enter(name)
                found.append(act())
            except (OSError, DeviceError) as error:
                failed.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if failed:
            raise DeviceError(f"TUN link: namespace {name}: {failed[0]}.") from failed[0]
        return found[0]

    def close(self) -> None:
        """Take everything away again; safe to call twice."""
        if self._thread is not None:
            os.write(self._stop_write, b"s")
            self._thread.join()
            self._thread = None
        for fd in (*self._fds, self._stop_read, self._stop_write):
            os.close(fd)
        self._fds, self._stop_read, self._stop_write = [], os.open(os.devnull, 0), os.open(os.devnull, os.O_WRONLY)
        for name in (self.edge, self.cloud):
            if (_NAMESPACES / name).exists():
                _ip("netns", "delete", name)

    def __enter__(self) -> TunLink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _tune(self, name: str) -> None:
        for key, value in SETTINGS.items():
            path = "/proc/sys/" + key.replace(".", "/")
            # A kernel that does not let it be set is used as it is.
            subprocess.run([*self.inside(name), "sh", "-c", f"echo {value} > {path}"], capture_output=True, check=False)

    def _carry(self) -> None:
        """The thread: edge to cloud is up."""
        other = {self._fds[0]: (self._fds[1], "up"), self._fds[1]: (self._fds[0], "down")}
        waiting: list[tuple[float, int, int, str, bytes, object]] = []
        number = 0
        while True:
            now = time.monotonic()
            timeout = min(max(waiting[0][0] - now, 0.0), LONGEST_WAIT_S) if waiting else LONGEST_WAIT_S
            ready, _, _ = select.select([*other, self._stop_read], [], [], timeout)
            if self._stop_read in ready:
                told = os.read(self._stop_read, 64)
                if b"s" in told:
                    return
                if b"w" in told:  # the link changed: what waits leaves at another time
                    waiting = [(passage.arrives_s, *rest, passage) for _, *rest, passage in waiting]  # type: ignore[attr-defined]  # a Passage
                    heapq.heapify(waiting)
            for fd in ready:
                if fd == self._stop_read:
                    continue
                target, direction = other[fd]
                for _ in range(AT_ONCE):
                    try:
                        packet = os.read(fd, MOST_PACKET)
                    except BlockingIOError:
                        break
                    now = time.monotonic()
                    with self._lock:
                        lane = self._lanes[direction]
                        if lane.backlog_bytes(now) > QUEUE_BYTES:
                            self._counts["dropped"] += 1
                            continue
                        passage = lane.admit(len(packet), now_s=now)
                    number += 1
                    heapq.heappush(waiting, (passage.arrives_s, number, target, direction, packet, passage))
            now = time.monotonic()
            while waiting and waiting[0][0] <= now:
                _, _, target, direction, packet, passage = heapq.heappop(waiting)  # type: ignore[assignment]  # a Passage
                with self._lock:
                    self._lanes[direction].arrived(passage)
                try:
                    os.write(target, packet)
                    self._counts[direction] += len(packet)
                except OSError as error:
                    if error.errno not in (errno.EIO, errno.EINVAL, errno.ENOBUFS, errno.EAGAIN):
                        raise
                    self._counts["dropped"] += 1


def _open_tun() -> int:
    fd = os.open(_DEVICE, os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.ioctl(fd, _SET_INTERFACE, struct.pack("16sH22x", b"link0", _TUN_WITHOUT_HEADER))
    except OSError:
        os.close(fd)
        raise
    return fd


def _enter(name: str) -> None:
    fd = os.open(_NAMESPACES / name, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(fd, _NEW_NET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(fd)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise DeviceError(f"TUN link: ip {' '.join(arguments)}: {done.stderr.strip()}")
