"""Part of `make bench-live`: the same requests in the simulator and live, on shaped traces with a moving cut too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge_deploy.api.validation.validate import validate_simulation
from edge_deploy.bench.live_rig import HOME, MODEL
from edge_deploy.bench.models import development_data
from edge_deploy.core.serde import write_json
from edge_deploy.report.validation_page import validation_page
from partitioner.simulator.validation import ValidateRequest, Validation

__all__ = ["measure_simulator"]

TRACES = (
    "traces/hsdpa_3g_norway/3Glogs.tar.gz::report.2010-09-13_1003CEST.json",
    "traces/ghent_4g_lte/4Glogs.tar.gz::report_bus_0001.json",
)
SECONDS, RATE_HZ = 60.0, 5.0
# Less than the process would like to have: its threads, and probes that run beside requests.
EDGE_CORES = 0.8


def measure_simulator(*, seconds: float = SECONDS) -> dict[str, Any]:
    """Errors of the simulator's median and 95th percentile, by condition, and the link that there really was."""
    data = development_data()
    found = validate_simulation(
        ValidateRequest(
            artifact=data / MODEL,
            traces=tuple(str(data / trace) for trace in TRACES),
            policies=("hysteresis",),
            seconds=seconds,
            rate_hz=RATE_HZ,
            edge_cores=EDGE_CORES,
        )
    )
    folder = HOME / "validation"
    folder.mkdir(parents=True, exist_ok=True)
    write_json(found, folder / "validation.json")
    Path(folder / "index.html").write_text(validation_page(found), encoding="utf-8")
    return _row(found)


def _row(found: Validation) -> dict[str, Any]:
    return {
        "conditions": {
            each.name: {
                "requests": each.requests,
                "live_median_ms": round(each.live_median_s * 1e3, 3),
                "simulated_median_ms": round(each.simulated_median_s * 1e3, 3),
                "median_error": round(each.median_error, 4),
                "live_p95_ms": round(each.live_p95_s * 1e3, 3),
                "simulated_p95_ms": round(each.simulated_p95_s * 1e3, 3),
                "p95_error": round(each.p95_error, 4),
            }
            for each in found.conditions
        },
        "links": {
            each.link: f"asked {each.asked_bps / 1e6:.3g}, achieved {each.achieved_bps / 1e6:.3g} Mbit/s"
            for each in found.links
        },
        "shaped_by": found.shaped_by,
        "edge": found.edge_quota,
        "cloud": found.cloud_quota,
    }
