"""The cloud's process behind a shaped link: packets between two namespaces where that can be had, else a proxy."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edge_deploy.api.validation.processes import cloud_process
from edge_deploy.core.errors import DeviceError
from partitioner.simulator.validation import ValidateRequest
from runtimes.shaping.link import ShapedLink
from runtimes.shaping.proxy import ShapedProxy
from runtimes.shaping.quota import CpuQuota
from runtimes.shaping.tun import TunLink, can_make_tun

__all__ = ["Shaped", "shaped_cloud"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shaped:
    """A cloud, and the link to it.

    Attributes:
        host, port: Where the edge connects to; `token`: what it shows.
        inside: What the edge's command is prefixed by.
        follow: Makes the link follow another one from now on.
        counts: Bytes that went "up" and "down" so far.
        how: What makes the link, for people.
        note: Why it is not made otherwise; empty where there is nothing to say.
    """

    host: str
    port: int
    token: str
    inside: tuple[str, ...]
    follow: Callable[[ShapedLink], None]
    counts: Callable[[], dict[str, int]]
    how: str
    by_tun: bool
    note: str = ""


@contextmanager
def shaped_cloud(
    request: ValidateRequest, halves: Path, quota: CpuQuota, link: ShapedLink, work: Path
) -> Iterator[Shaped]:
    """Start the cloud; the link begins with `link`.

    Raises:
        DeviceError: A TUN link was asked for by name and cannot be had.
        ToolchainError: The cloud ended before it served.
    """
    reason = "asked for" if request.link_by == "proxy" else can_make_tun()
    tun = None
    if not reason:
        try:
            tun = TunLink(link)
        except DeviceError as error:
            reason = str(error)
    if tun is None:
        if request.link_by == "tun":
            raise DeviceError(f"validate-simulation: --link-by tun: {reason}; take --link-by proxy.")
        with cloud_process(halves, quota) as address, ShapedProxy(address, link) as proxy:
            yield Shaped(
                host=proxy.address[0],
                port=proxy.address[1],
                token="",
                inside=(),
                follow=proxy.follow,
                counts=lambda: proxy.counts,
                how="user-space TCP proxy on the loopback; connections stay open, headers of TCP are not counted",
                by_tun=False,
                note=f"no TUN link: {reason}",
            )
        return
    token = secrets.token_urlsafe(24)
    tokens = work / "tokens"
    tokens.touch(mode=0o600)
    tokens.write_text(token + "\n", encoding="utf-8")
    with (
        tun,
        cloud_process(halves, quota, host=tun.cloud_address, token_file=tokens, inside=tun.inside(tun.cloud)) as (
            host,
            port,
        ),
    ):
        yield Shaped(
            host=host,
            port=port,
            token=token,
            inside=tuple(tun.inside(tun.edge)),
            follow=tun.follow,
            counts=lambda: tun.counts,
            how="two network namespaces with a user-space TUN link; packets are shaped, headers count",
            by_tun=True,
        )
