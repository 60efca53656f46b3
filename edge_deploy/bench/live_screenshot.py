"""The live page of a real run, as a browser shows it: build/bench-live/dashboard.png."""

from __future__ import annotations

import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

from edge_deploy.api.dashboard import Dashboard
from edge_deploy.bench.live_rig import HOME, ServerProcess, make_rig
from edge_deploy.core.errors import BadInput
from partitioner.live.options import LiveOptions
from partitioner.live.session import LiveSession
from runtimes.shaping.link import constant_link
from runtimes.shaping.proxy import ShapedProxy

__all__ = ["measure_screenshot"]

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
LINK = constant_link(uplink_bps=20e6, downlink_bps=20e6, rtt_s=0.03)
RUN_S, BETWEEN_S, REQUEST_EVERY_S = 12.0, 2.0, 0.02


def measure_screenshot(*, seconds: float = RUN_S) -> dict[str, Any]:
    """What was shown: the page's own figures, and the session's.

    Raises:
        BadInput: There is no browser.
    """
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        raise BadInput(f"bench-live: no browser; install one of {', '.join(BROWSERS)}.")
    rig = make_rig()
    picture = (HOME / "dashboard.png").resolve()
    with ServerProcess(rig.folder) as server, ShapedProxy(("127.0.0.1", server.port), LINK) as proxy:
        connect = rig.connect_to(proxy.address)
        first = rig.halves[len(rig.halves) // 2].cut
        session = LiveSession(rig.whole, rig.halves, connect, rig.open_half, first=first, options=LiveOptions())
        with session as live, Dashboard(rig.whole.name, lambda: live.status) as page:
            stop = threading.Event()
            asking = threading.Thread(target=_ask, args=(live, rig, stop))
            moving = threading.Thread(target=_move, args=(live, rig, stop))
            asking.start()
            moving.start()
            stop.wait(seconds)
            shown = _shoot(browser, page.url, picture)
            stop.set()
            asking.join()
            moving.join()
            status = live.settled_status()
    return {
        "picture": str(picture),
        "bytes": picture.stat().st_size,
        "shows a cut": any(f'id="cut">{half.cut}<' in shown for half in rig.halves),
        "says reachable": 'id="cloud">reachable<' in shown,
        "answered": status.answered,
        "switches": status.switches,
    }


def _ask(live: LiveSession, rig: Any, stop: threading.Event) -> None:
    number = 0
    while not stop.wait(REQUEST_EVERY_S):
        live.infer(rig.feed(number))
        number += 1


def _move(live: LiveSession, rig: Any, stop: threading.Event) -> None:
    number = 0
    while not stop.wait(BETWEEN_S):
        live.switch_to(rig.halves[number % len(rig.halves)].cut)
        number += 1


def _shoot(browser: str, url: str, picture: Path) -> str:
    """The page as the browser left it, as HTML; the picture is written."""
    with subprocess.Popen(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--window-size=1100,1000",
            f"--user-data-dir={picture.with_suffix('.profile')}",
            "--virtual-time-budget=4000",
            f"--screenshot={picture}",
            "--dump-dom",
            url,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        shown, _ = process.communicate(timeout=120)
    shutil.rmtree(picture.with_suffix(".profile"), ignore_errors=True)
    return shown
