"""`make bench-live`: what the live split costs, how it switches, and whether it loses anything.

Needs EDGE_DEPLOY_DATA. Rows are kept in build/bench-live and made again only at another commit (or with BENCH=--fresh).
BENCH="faults" makes the rows of one part alone. At the end stands which figures are met; without parts that were not
run it says so of them.
"""

from __future__ import annotations

import functools
import importlib
import json
import sys

from edge_deploy.bench.live_figures import figures
from edge_deploy.bench.live_rig import HOME
from edge_deploy.bench.rows import kept, markdown, revision
from edge_deploy.core.errors import BadInput

__all__ = ["main"]

# Part, module and function: each gives plain JSON values.
PARTS = {
    "simulator": ("edge_deploy.bench.live_simulator", "measure_simulator"),
    "exits": ("edge_deploy.bench.live_exits", "measure_exits"),
    "overhead": ("edge_deploy.bench.live_overhead", "measure_overhead"),
    "switching": ("edge_deploy.bench.live_switching", "measure_switching"),
    "screenshot": ("edge_deploy.bench.live_screenshot", "measure_screenshot"),
    "hostile": ("edge_deploy.bench.live_hostile", "measure_hostile"),
    "clients": ("edge_deploy.bench.live_clients", "measure_clients"),
    "faults": ("edge_deploy.bench.live_faults", "measure_faults"),
}


def main(arguments: list[str] | None = None) -> None:
    """Run the parts that were asked for and print their rows."""
    given = sys.argv[1:] if arguments is None else arguments
    fresh, wanted = "--fresh" in given, [word for word in given if not word.startswith("--")]
    unknown = sorted(set(wanted) - set(PARTS))
    if unknown:
        raise BadInput(f"bench-live: no part {', '.join(unknown)}; there are {', '.join(PARTS)}.")
    rows = {}
    for part in wanted or PARTS:
        print(f"- {part}", file=sys.stderr, flush=True)
        rows[part] = kept(HOME, part, functools.partial(_made, part), fresh=fresh)
        print(f"{part} ({revision()}): {json.dumps(rows[part], indent=1)}", flush=True)
    print(f"\nAt {revision()}:\n")
    print(markdown(("figure", "wanted", "found", ""), figures(rows)))


def _made(part: str) -> object:
    module, function = PARTS[part]
    return getattr(importlib.import_module(module), function)()


if __name__ == "__main__":
    main()
