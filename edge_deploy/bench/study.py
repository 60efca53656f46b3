"""`make bench-study`: the published sweep and layer tables analysed, and our own sweep with 500 measured pairs.

The measured pairs want an idle machine. The folder is gone on with: what was measured is not measured again.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

__all__ = ["main"]

OUT = Path("build/bench-study")


def main() -> None:
    """Run all studies and print their figures."""
    from edge_deploy.api.study import study_measured_sweep, study_scission
    from edge_deploy.api.sweep import sweep
    from edge_deploy.cli.study import print_study

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--measure", type=int, default=500)
    options = parser.parse_args()
    data = os.environ.get("EDGE_DEPLOY_DATA")
    if data:
        print_study(study_measured_sweep(Path(data, "tables/adaptive_dnn_qub_dev")))
        must = {"device": [6], "edge": [7], "cloud": [13]}
        found = study_scission(Path(data, "tables/scission_qub"), model="vgg19", must=must)
        print("Scission, VGG19:", ", ".join(f"{each.total_s:.4f} s" for each in found))
    else:
        print("EDGE_DEPLOY_DATA does not name a folder: the published tables are left out", file=sys.stderr)
    began_s = time.perf_counter()
    study = sweep(
        options.out, measure=options.measure, progress=lambda line: print(f"- {line}", file=sys.stderr, flush=True)
    )
    print_study(study)
    for note in study.notes:
        print(f"note: {note}")
    print(f"{time.perf_counter() - began_s:.0f} s; page: {options.out / 'report.html'}")


if __name__ == "__main__":
    main()
