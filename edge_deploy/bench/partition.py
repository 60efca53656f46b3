"""`make bench-partition`: how fast costs, decisions, minimum cuts and the simulator are, on this machine.

BENCH="--only cost" runs one part, BENCH="--out FILE" keeps the numbers as JSON.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import sys
from pathlib import Path

__all__ = ["main"]

SIMULATOR = "edge_deploy.bench.partition_simulator"
PARTS = ("cost", "decision", "min-cut", "simulator")


def main(arguments: list[str] | None = None) -> None:
    """Run the parts that were asked for and print their numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=PARTS, action="append", help="run this part; repeatable")
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    options = parser.parse_args(arguments)
    # The matrix product must not start threads of its own beside ours.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    found: dict[str, object] = {}
    for part in options.only or PARTS:
        print(f"- {part}", file=sys.stderr, flush=True)
        found[part] = _measure(part)
        print(f"{part}: {json.dumps(found[part], indent=1)}", flush=True)
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _measure(part: str) -> object:
    if part == "cost":
        from edge_deploy.bench.partition_cost import measure_cost

        return measure_cost()
    if part == "simulator":
        if importlib.util.find_spec(SIMULATOR) is None:
            return "not in this checkout"
        return importlib.import_module(SIMULATOR).measure()
    from edge_deploy.bench.partition_solvers import measure_decision, measure_min_cut

    return measure_decision() if part == "decision" else measure_min_cut()


if __name__ == "__main__":
    main()
