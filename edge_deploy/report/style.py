"""The style sheet of the page: light, dark and print."""

from __future__ import annotations

__all__ = ["STYLE"]

STYLE = """
:root {
  color-scheme: light dark; --ink: #1c2026; --soft: #5d6673; --paper: #fff; --panel: #f6f7f9;
  --line: #d9dde3; --float32: #6b7280; --int8: #0072b2; --int4: #d55e00; --good: #00795c; --fair: #8a6100;
  --bad: #b3261e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e7eaee; --soft: #9aa4b2; --paper: #14171b; --panel: #1d2126; --line: #363c45; --float32: #a3abb8;
    --int8: #56b4e9; --int4: #f0924a; --good: #43c59e; --fair: #e0b354; --bad: #f2857b;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1.5rem 1.25rem 3rem; max-width: 84rem; background: var(--paper);
  color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
h1 { font-size: 1.6rem; margin: 0 0 .25rem; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 .25rem; overflow-wrap: anywhere; }
h3 { font-size: 1.05rem; margin: 1.75rem 0 .5rem; }
p { margin: .25rem 0; }
.muted { color: var(--soft); }
figcaption .muted { margin-left: .5em; }
.lead { color: var(--soft); }
section { border-top: 1px solid var(--line); margin-top: 2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td {
  padding: .3rem .6rem .3rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line);
}
th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
th.group { border-bottom: 1px solid var(--soft); text-align: center; }
thead tr:first-child th:empty { border: 0; }
th.number, td.number { text-align: right; white-space: nowrap; }
.named { white-space: nowrap; }
.icon { vertical-align: -2px; }
td { max-width: 26rem; overflow-wrap: break-word; }
table.layers td:first-child {
  overflow-wrap: anywhere; min-width: 9rem; max-width: 24rem; font-size: .8rem;
  font-family: ui-monospace, Menlo, Consolas, monospace;
}
tr.changed td { background: color-mix(in srgb, var(--fair) 12%, transparent); }
small { font-size: .9em; color: var(--soft); display: block; white-space: nowrap; }
.badge {
  border: 1px solid currentColor; border-radius: .75rem; padding: 0 .5rem; font-size: .8rem;
  white-space: nowrap;
}
.good { color: var(--good); }
.fair { color: var(--fair); }
.bad { color: var(--bad); }
.plain { color: var(--soft); }
.plots { display: flex; flex-wrap: wrap; gap: 1rem; margin: .75rem 0; }
.plots figure { flex: 1 1 24rem; max-width: 37rem; }
figure {
  margin: 0; background: var(--panel); border: 1px solid var(--line); border-radius: .5rem;
  padding: .6rem .75rem;
}
figcaption { font-weight: 600; font-size: .875rem; overflow-wrap: anywhere; }
figcaption .muted { font-weight: 400; }
svg.plot, svg.histogram { width: 100%; height: auto; display: block; overflow: visible; }
svg text { fill: var(--ink); font-size: 11px; }
svg .tick { fill: var(--soft); font-size: 10.5px; }
svg .axis-title { fill: var(--soft); font-size: 11.5px; }
svg .label { font-size: 11px; }
.grid { stroke: var(--line); stroke-width: 1; }
.axis { stroke: var(--soft); stroke-width: 1; }
.reference { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 4 3; }
.marker { stroke: var(--panel); stroke-width: 1; }
.whisker { stroke-width: 1.6; opacity: .55; }
.p-float32 { fill: var(--float32); }
.p-int8 { fill: var(--int8); }
.p-int4 { fill: var(--int4); }
.whisker.p-float32, .stick.p-float32 { stroke: var(--float32); }
.whisker.p-int8, .stick.p-int8 { stroke: var(--int8); }
.whisker.p-int4, .stick.p-int4 { stroke: var(--int4); }
.bar { fill: var(--int8); }
.bar-back { fill: var(--line); }
.barred { white-space: nowrap; }
.area { fill: var(--float32); opacity: .35; }
.stick { stroke: var(--int8); stroke-width: 1.6; }
.weights {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(14rem, 1fr)); gap: .6rem; margin-top: .5rem;
}
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; font-size: .85rem; color: var(--soft); }
.legend .key { display: inline-block; width: .8rem; height: .8rem; vertical-align: -1px; }
details { margin: .4rem 0; }
summary { cursor: pointer; padding: .2rem 0; }
dl {
  display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: .5rem 0;
  font-size: .875rem;
}
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
code { font-size: .8rem; overflow-wrap: anywhere; }
ul { margin: .25rem 0; padding-left: 1.25rem; }
nav { margin: .5rem 0; }
nav a { margin-right: 1rem; }
a { color: var(--int8); }
@media print {
  :root {
    color-scheme: light; --ink: #000; --soft: #444; --paper: #fff; --panel: #fff; --line: #bbb;
    --float32: #6b7280; --int8: #0072b2; --int4: #d55e00; --good: #00795c; --fair: #8a6100; --bad: #b3261e;
  }
  body { max-width: none; padding: 0; font-size: 10pt; }
  .scroll { overflow: visible; }
  table { font-size: 7.5pt; }
  figure, tr { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  details::details-content { content-visibility: visible; }
  * { print-color-adjust: exact; }
}
"""
