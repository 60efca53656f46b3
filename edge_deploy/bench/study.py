"""`make bench-study`: the published sweep and layer tables analysed, and our own sweep with 500 measured pairs.

The measured pairs want an idle machine. The folder is gone on with: what was measured is not measured again.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_deploy.api.study import Study

__all__ = ["main"]

OUT = Path("build/bench-study")


def main() -> None:
    """Run all studies and print their figures."""
    from edge_deploy.api.study import study_measured_sweep, study_scission
    from edge_deploy.api.sweep import sweep

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--measure", type=int, default=500)
    options = parser.parse_args()
    data = os.environ.get("EDGE_DEPLOY_DATA")
    if data:
        _print(study_measured_sweep(Path(data, "tables/adaptive_dnn_qub_dev")))
        must = {"device": [6], "edge": [7], "cloud": [13]}
        found = study_scission(Path(data, "tables/scission_qub"), model="vgg19", must=must)
        print("Scission, VGG19:", ", ".join(f"{each.total_s:.4f} s" for each in found))
    else:
        print("EDGE_DEPLOY_DATA does not name a folder: the published tables are left out", file=sys.stderr)
    began_s = time.perf_counter()
    study = sweep(
        options.out, measure=options.measure, progress=lambda line: print(f"- {line}", file=sys.stderr, flush=True)
    )
    _print(study)
    for note in study.notes:
        print(f"note: {note}")
    print(f"{time.perf_counter() - began_s:.0f} s; page: {options.out / 'report.html'}")


def _print(study: Study) -> None:
    """Tables as the README has them."""
    print(f"{study.provenance}: {study.source}\n")
    print("| net | best cut moves in | static s | oracle s | oracle's gain | held-out gain | of the gap (95 %) |")
    print("|---|---|---|---|---|---|---|")
    for each in study.findings:
        kept = "- | -"
        if each.chosen is not None:
            interval = f" ({each.chosen.low:+.0%} to {each.chosen.high:+.0%})" if each.noisy else ""
            kept = f"{each.chosen.gain:+.1%} | {each.chosen.share:+.0%}{interval}"
        moved = f"{each.moved:,} of {each.conditions:,}"
        print(
            f"| {each.name} | {moved} | {each.static_s:.4g} | {each.oracle_s:.4g} | {each.oracle_gain:.1%} | {kept} |"
        )
    if study.model_error:
        print("\n| net | pairs | median error | p95 | bias | rank correlation |\n|---|---|---|---|---|---|")
    for error in study.model_error:
        figures = f"{error.median:.1%} | {error.p95:.1%} | {error.bias:+.1%} | {error.rank:.3f}"
        print(f"| {error.net} | {error.pairs} | {figures} |")
    print()


if __name__ == "__main__":
    main()
