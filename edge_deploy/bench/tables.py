"""`make bench-tables`: DLRMs with large tables, from disk to both formats, under a memory limit; and their look-ups.

Parts: `kaggle` (33.8 million rows x 16, from three kinds of checkpoint), `large` (49 million x 64, 12.6 GB of float; it
takes 16 GB of disk while it runs) and `lookups`. BENCH="kaggle lookups" makes some of them, BENCH=--fresh all anew;
what a former run of the same revision has measured is kept in build/bench-tables. Checkpoints are made on the fly
there; BENCH="clean" deletes them.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edge_deploy.bench.rows import kept, markdown, revision
from edge_deploy.bench.tables_lookups import lookup_rows
from edge_deploy.bench.tables_source import KAGGLE_ROWS, LARGE_ROWS, Kind, make_source, write_factory
from edge_deploy.bench.tables_use import measure_use
from edge_deploy.bench.tables_watch import run_watched

HOME = Path("build/bench-tables")
MB = 1_000_000
MIB = 1 << 20
LIMITS_MB = {"table": 272, "row": 339}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One conversion.

    Attributes:
        limit: MiB that every process may have of private memory; `most` MB that the tree may hold of it.
        seconds: At most, where that is wanted.
    """

    source: Kind
    target: str
    scale: str
    limit: int
    most: int
    seconds: float | None = None
    factory: bool = False
    precision: str = "int4"

    @property
    def name(self) -> str:
        """For files and rows."""
        return f"{self.source}{'-module' if self.factory else ''}-{self.target}-{self.precision}-{self.scale}"


CASES = (
    Case(source="safetensors", target="tflite", scale="table", limit=512, most=150, seconds=30),
    Case(source="safetensors", target="tflite", scale="row", limit=512, most=150, seconds=30),
    Case(source="npy", target="tflite", scale="table", limit=512, most=150, seconds=30),
    Case(source="torch", target="tflite", scale="table", limit=1024, most=700, factory=True),
    Case(source="safetensors", target="executorch", scale="table", limit=1024, most=700),
    Case(source="safetensors", target="executorch", scale="row", limit=1024, most=700),
    Case(source="torch", target="executorch", scale="table", limit=1024, most=700, factory=True),
)


def convert_row(case: Case, rows: tuple[int, ...], dim: int, home: Path) -> dict[str, Any]:
    """Convert, look at the files, and use them."""
    source = make_source(home, case.source, rows, dim).resolve()
    out = home / case.name
    shutil.rmtree(out, ignore_errors=True)
    model = [str(source)]
    if case.factory:
        factory = write_factory(home, rows, dim)
        model = ["--source", factory, "--weights", str(source), "--input", "dense:1,13"]
        model += ["--input", f"sparse:1,{len(rows)}:int64"]
    command = [sys.executable, "-m", "edge_deploy.cli.main", "convert", *model, "--to", case.target]
    command += ["--precision", case.precision, "--table-scale", case.scale, "--out", str(out.resolve())]
    ran = run_watched(command, limit_bytes=case.limit * MIB, log=home / f"{case.name}.log", folder=home)
    if ran.code:
        raise SystemExit(f"{case.name}: ended with {ran.code}:\n{ran.output[-2000:]}")
    folder = out / f"{case.target}-{case.precision}"
    use = {"": measure_use(folder)}
    if case.target == "executorch" and shutil.which("g++"):
        use["native runner"] = measure_use(folder, "executorch-native")
    found = {
        "seconds": ran.seconds,
        "anonymous_mb": ran.anonymous_bytes / MB,
        "file_mb": sum(path.stat().st_size for path in folder.iterdir() if path.suffix in MODEL_FILES) / MB,
        "folder_mb": sum(path.stat().st_size for path in folder.iterdir()) / MB,
        "use": use,
    }
    shutil.rmtree(out)
    return found


MODEL_FILES = (".tflite", ".pte", ".ptd")


def kaggle(fresh: bool) -> str:
    """The Criteo Kaggle tables from every kind of checkpoint."""
    lines, uses = [], []
    for case in CASES:
        row = kept(HOME, f"kaggle-{case.name}", partial(convert_row, case, KAGGLE_ROWS, 16, HOME), fresh=fresh)
        limit_mb = LIMITS_MB[case.scale]
        lines.append(_line(case, row, limit_mb))
        for runner, use in row["use"].items():
            who = f"{case.target} {runner}".strip()
            resident = f"{use['resident_mb']:.1f} MB, {use['anonymous_mb']:.1f} MB anonymous"
            before = f"{use['runtime_mb']:.1f} MB"
            times = f"{use['power_law_us']:.1f}", f"{use['uniform_us']:.1f}"
            load = f"{use['load_ms']:.1f} ms"
            uses.append([case.source, who, case.scale, load, before, resident, *times, _verdict(case, use)])
    head = ("checkpoint", "target", "scale a", "files", "wanted", "seconds", "anonymous memory", "limit a process")
    times_head = ("us a sample, power-law", "uniform", "wanted")
    use_head = ("checkpoint", "runs by", "scale a", "load", "resident before", "most resident, power-law", *times_head)
    return f"{markdown(head, lines)}\n\n{markdown(use_head, uses)}"


def _verdict(case: Case, use: dict[str, float]) -> str:
    if (case.target, case.scale) != ("tflite", "table"):
        return ""
    good = use["load_ms"] < 10 and use["resident_mb"] < 60 and use["power_law_us"] < 20
    return f"{'met' if good else 'NOT MET'} (10 ms, 60 MB, 20 us)"


def _line(case: Case, row: dict[str, Any], limit_mb: float) -> list[str]:
    good = row["file_mb"] <= limit_mb and row["anonymous_mb"] <= case.most
    seconds = f"{row['seconds']:.1f}"
    if case.seconds is not None:
        good &= row["seconds"] <= case.seconds
        seconds += f" (at most {case.seconds:.0f})"
    return [
        case.source + (" of a module" if case.factory else ""),
        case.target,
        case.scale,
        f"{row['file_mb']:.1f} MB (at most {limit_mb:.0f})",
        "met" if good else "NOT MET",
        seconds,
        f"{row['anonymous_mb']:.0f} MB (at most {case.most})",
        f"{case.limit} MiB",
    ]


def large(fresh: bool) -> str:
    """12.6 GB of float to INT4, and to an INT8 file of more than 2 GB; the checkpoint is deleted afterwards."""
    home = HOME / "large"
    lines = []
    try:
        for precision, limit_mb in (("int4", 1750), ("int8", 3300)):
            case = Case(source="safetensors", target="tflite", scale="table", limit=512, most=150, precision=precision)
            row = kept(HOME, f"large-{precision}", partial(convert_row, case, LARGE_ROWS, 64, home), fresh=fresh)
            lines.append(_line(case, row, limit_mb))
    finally:
        shutil.rmtree(home, ignore_errors=True)
    head = ("checkpoint", "target", "scale a", "files", "wanted", "seconds", "anonymous memory", "limit a process")
    return f"{sum(LARGE_ROWS):,} rows x 64, INT4 and INT8:\n\n{markdown(head, lines)}"


def lookups(fresh: bool) -> str:
    """LiteRT's kernel on the file against torch's on its own layout."""
    rows = kept(HOME, "lookups", lambda: lookup_rows(HOME / "lookups"), fresh=fresh)
    lines = [
        [
            row["table"],
            row["ids"],
            row["scale"],
            f"{row['litert']:.0f} M/s",
            f"{row['torch']:.0f} M/s",
            f"{row['ratio']:.2f}",
            f"{100 * row['bytes_share']:.0f} %, {100 * row['lines_share']:.0f} % in whole lines",
        ]
        for row in rows
    ]
    head = ("table x 16", "ids", "scale a", "LiteRT, the file", "torch, 4-bit bags", "ratio", "of memory bandwidth")
    return f"{markdown(head, lines)}\n\nOne thread reads {rows[0]['bandwidth']:.1f} GB/s from memory."


PARTS = {"kaggle": kaggle, "large": large, "lookups": lookups}


def main(words: list[str]) -> int:
    """Print the tables of the parts asked for."""
    fresh = "--fresh" in words
    chosen = [word for word in words if not word.startswith("-")]
    if "clean" in chosen:
        shutil.rmtree(HOME, ignore_errors=True)
        return 0
    unknown = [word for word in chosen if word not in PARTS]
    if unknown:
        print(f"bench-tables: {', '.join(unknown)}: must be of {', '.join(PARTS)}, clean.", file=sys.stderr)
        return 2
    HOME.mkdir(parents=True, exist_ok=True)
    print(f"revision {revision()}\n")
    for name in chosen or PARTS:
        print(f"- {name}", file=sys.stderr, flush=True)
        print(PARTS[name](fresh), flush=True)
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
