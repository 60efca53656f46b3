"""Write a trace as our own CSV, which reads back bit for bit."""

from __future__ import annotations

from pathlib import Path

from edge_deploy.core.conditions import CONDITION_FIELDS, Trace
from partitioner.traces.formats.own import MAGIC

__all__ = ["write_trace"]


def write_trace(trace: Trace, path: Path) -> None:
    """Write `trace` to `path`; the file appears in one rename."""
    lines = [MAGIC, f"# source: {_one_line(trace.source)}", f"# end_s: {float(trace.end_s)!r}"]
    lines += [f"# filled {name}: {_one_line(how)}" for name, how in trace.filled.items()]
    lines += [f"# repair: {_one_line(line)}" for line in trace.repairs]
    lines.append(",".join(("time_s", *CONDITION_FIELDS)))
    columns = [trace.time_s, *(trace.values[name] for name in CONDITION_FIELDS)]
    lines += [",".join(repr(float(value)) for value in row) for row in zip(*columns, strict=True)]
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
    partial.replace(path)


def _one_line(text: str) -> str:
    return " ".join(text.split())
