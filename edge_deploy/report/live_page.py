"""The live page of a run: an empty form of what is told, and the script that fills it in twice a second."""

from __future__ import annotations

from edge_deploy.report.markup import Markup, element
from edge_deploy.report.style import STYLE

__all__ = ["POLICY", "SCRIPT", "live_page"]

# The page runs its own script and asks its own server only.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; connect-src 'self'; base-uri 'none'"
_STYLE = """
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .75rem; margin: 1rem 0; }
.tile { border: 1px solid var(--line, #ddd); border-radius: 6px; padding: .6rem .8rem; }
.tile b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.tile span { color: var(--soft); font-size: .85rem; }
#latencies { width: 100%; height: 140px; display: block; }
#latencies polyline { fill: none; stroke: var(--int8, #0072b2); stroke-width: 1.4; vector-effect: non-scaling-stroke; }
.away #state { color: #c0392b; font-weight: 600; }
"""
_TILES = (
    ("cut", "cut in force"),
    ("cloud", "cloud"),
    ("p50", "latency, median"),
    ("p95", "95th percentile"),
    ("p99", "99th percentile"),
    ("uplink", "uplink"),
    ("downlink", "downlink"),
    ("rtt", "round trip"),
    ("load", "load of the edge by others"),
    ("pressure", "of the time something waits for a CPU"),
    ("up", "sent"),
    ("down", "received"),
    ("switches", "switches"),
    ("edge", "answered on the edge"),
    ("by-cloud", "answered by the cloud"),
    ("fallback", "fell back to the edge"),
    ("lost", "lost"),
)
SCRIPT = """'use strict';
const at = id => document.getElementById(id);
const put = (id, text) => { at(id).textContent = text; };
const ms = s => s >= 1 ? s.toPrecision(3) + ' s' : (s * 1e3).toPrecision(3) + ' ms';
const scaled = (value, units, step) => {
  let place = 0;
  while (value >= step && place < units.length - 1) { value /= step; place += 1; }
  return (value >= 100 ? value.toFixed(0) : value.toPrecision(3)) + ' ' + units[place];
};
const bytes = n => scaled(n, ['B', 'kB', 'MB', 'GB', 'TB'], 1000);
const rate = n => n === 0 ? 'down' : scaled(n, ['bit/s', 'kbit/s', 'Mbit/s', 'Gbit/s'], 1000);

function draw(newest) {
  const line = at('line');
  if (newest.length < 2) { line.setAttribute('points', ''); return; }
  const first = newest[0][0], span = Math.max(newest[newest.length - 1][0] - first, 1e-9);
  const most = Math.max(...newest.map(pair => pair[1]), 1e-9);
  line.setAttribute('points', newest.map(([moment, took]) =>
    ((moment - first) / span * 1000).toFixed(1) + ',' + (100 - took / most * 95).toFixed(1)).join(' '));
  put('axis', 'newest ' + newest.length + ' requests, ' + ms(span) + '; highest ' + ms(most));
}

function show(told) {
  put('cut', told.cut);
  put('cloud', told.cloud === 'reachable' ? 'reachable' : 'away');
  put('reason', told.cloud === 'reachable' ? '' : told.cloud);
  put('policy', told.policy);
  put('why', told.why);
  for (const name of ['p50', 'p95', 'p99']) put(name, ms(told[name + '_s']));
  put('up', bytes(told.up_bytes));
  put('down', bytes(told.down_bytes));
  put('switches', told.switches);
  put('edge', told.answered.edge);
  put('by-cloud', told.answered.cloud);
  put('fallback', told.answered.fallback);
  put('lost', told.answered.lost);
  put('warm', told.warm.join(', '));
  put('last', told.last_reason);
  const now = told.conditions;
  if (now) {
    put('uplink', rate(now.uplink_bps));
    put('downlink', rate(now.downlink_bps));
    put('rtt', ms(now.rtt_s));
    put('load', Math.round(now.edge_load * 100) + ' %');
  }
  put('pressure', told.cpu_pressure === null ? 'unknown' : Math.round(told.cpu_pressure * 100) + ' %');
  const rows = Object.entries(told.by_cut).map(([cut, count]) => {
    const row = document.createElement('tr');
    for (const text of [cut, count]) {
      const cell = document.createElement('td');
      cell.textContent = text;
      row.append(cell);
    }
    return row;
  });
  at('cuts').replaceChildren(...rows);
  draw(told.newest);
  put('state', 'running for ' + told.seconds.toFixed(0) + ' s');
}

async function ask() {
  try {
    const answer = await fetch('status.json', { cache: 'no-store' });
    if (!answer.ok) throw new Error(answer.status);
    show(await answer.json());
    document.body.classList.remove('away');
  } catch (error) {
    document.body.classList.add('away');
    put('state', 'the run does not answer');
  }
  setTimeout(ask, 500);
}
ask();
"""


def live_page(title: str) -> str:
    """The whole HTML text; `SCRIPT` must be served beside it as live.js, and the status as status.json."""
    head = element(
        "head",
        element("meta", attributes={"charset": "utf-8"}),
        element("meta", attributes={"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        element("title", f"{title} - edge-deploy run"),
        element("style", Markup(STYLE + _STYLE)),
        element("script", attributes={"src": "live.js", "defer": "defer"}),
    )
    tiles = [
        element("div", element("b", "–", attributes={"id": name}), element("span", text), css="tile")
        for name, text in _TILES
    ]
    line = element("polyline", attributes={"id": "line", "points": ""})
    box = {"id": "latencies", "viewBox": "0 0 1000 100", "preserveAspectRatio": "none", "role": "img"}
    body = element(
        "body",
        element("h1", title),
        element("p", _slot("state", "waiting for the run"), ", policy ", _slot("policy"), css="lead"),
        element("div", tiles, css="tiles"),
        element("p", _slot("why"), " ", _slot("reason"), css="muted"),
        element("h2", "Latency"),
        element("svg", line, attributes={**box, "aria-label": "latency of the newest requests"}),
        element("p", _slot("axis"), css="muted"),
        element("h2", "Requests by cut in force"),
        element("table", element("tbody", attributes={"id": "cuts"})),
        element("p", "Loaded halves: ", _slot("warm"), css="muted"),
        element("p", "Last fallback: ", _slot("last"), css="muted"),
    )
    return "<!DOCTYPE html>\n" + element("html", head, body, attributes={"lang": "en"}) + "\n"


def _slot(name: str, text: str = "") -> Markup:
    return element("span", text, attributes={"id": name})
