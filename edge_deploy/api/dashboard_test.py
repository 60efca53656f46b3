"""The live page in a real browser, and what it is told."""

import json
import shutil
import subprocess
import urllib.error
import urllib.request

import pytest

from edge_deploy.api.dashboard import Dashboard
from edge_deploy.core.conditions import Conditions
from edge_deploy.core.errors import BadInput
from partitioner.live.status import Status

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


def status(**changes):
    given = {
        "seconds": 12.0,
        "cut": "005-<b>e951fb",
        "warm": ("all-edge", "005-e951fb"),
        "policy": "hysteresis",
        "why": "hysteresis: stays.",
        "conditions": Conditions(uplink_bps=12.5e6, downlink_bps=0.0, rtt_s=0.0421, edge_load=0.25),
        "cloud": "CloudGone: nobody <script>alert(1)</script> there",
        "answered": {"edge": 5, "cloud": 1234, "fallback": 7, "lost": 0},
        "by_cut": {"all-edge": 5, "005-<b>e951fb": 1241},
        "p50_s": 0.0123,
        "p95_s": 0.0456,
        "p99_s": 1.25,
        "up_bytes": 123_456,
        "down_bytes": 9_900_000,
        "attempts": 1300,
        "switches": 42,
        "last_reason": "CloudTimedOut: slow",
        "cpu_pressure": 0.126,
        "newest": ((1.0, 0.01), (2.0, 0.02), (3.0, 0.015)),
    }
    return Status(**{**given, **changes})


@pytest.fixture
def page():
    with Dashboard("net with 127.0.0.1:8001", status) as served:
        yield served


def get(url, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60) as answer:
        return answer.read().decode(), answer.headers


def test_the_status_is_told_as_json_and_the_page_runs_nothing_but_its_own_script(page):
    text, headers = get(page.url + "status.json")
    told = json.loads(text)
    assert told["answered"]["cloud"] == 1234
    assert told["conditions"]["rtt_s"] == 0.0421
    text, headers = get(page.url)
    assert "net with 127.0.0.1:8001" in text
    assert "script-src 'self'" in headers["Content-Security-Policy"]
    assert 'src="live.js"' in text and "<script>" not in text


def test_a_page_of_another_site_cannot_read_it(page):
    with pytest.raises(urllib.error.HTTPError, match="400"):
        get(page.url + "status.json", Host="evil.example")


def test_it_listens_on_the_loopback_only():
    with pytest.raises(BadInput, match="ssh -L"):
        Dashboard("net", status, host="0.0.0.0")


@pytest.mark.skipif(BROWSER is None, reason="needs chromium (apt-get install chromium)")
def test_a_browser_shows_what_the_run_does(page, tmp_path):
    shot = tmp_path / "page.png"
    command = [
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        "--window-size=1100,1000",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--virtual-time-budget=4000",
        f"--screenshot={shot}",
        "--dump-dom",
        page.url,
    ]
    for _ in range(3):  # a machine that is busy beyond measure may end the browser before it has shown anything
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
        if 'id="lost">0<' in done.stdout:
            break
    shown = {
        "cut": "005-&lt;b&gt;e951fb",
        "cloud": "away",
        "reason": "CloudGone: nobody &lt;script&gt;alert(1)&lt;/script&gt; there",
        "p50": "12.3 ms",
        "p99": "1.25 s",
        "uplink": "12.5 Mbit/s",
        "downlink": "down",
        "rtt": "42.1 ms",
        "load": "25 %",
        "pressure": "13 %",
        "up": "123 kB",
        "down": "9.90 MB",
        "by-cloud": "1234",
        "fallback": "7",
        "lost": "0",
        "switches": "42",
        "state": "running for 12 s",
        "last": "CloudTimedOut: slow",
    }
    for name, text in shown.items():
        assert f'id="{name}">{text}<' in done.stdout, name
    assert 'points="0.0,' in done.stdout
    assert shot.read_bytes().startswith(b"\x89PNG")
