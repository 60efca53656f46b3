"""Part of `make bench-live`: the same requests in the simulator and live, on shaped traces with a moving cut too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge_deploy.api.validation.validate import validate_simulation
from edge_deploy.bench.live_rig import HOME, MODEL
from edge_deploy.bench.live_slow_model import write_slow_model
from edge_deploy.bench.models import development_data
from edge_deploy.core.cut import ALL_CLOUD, ALL_EDGE
from edge_deploy.core.serde import write_json
from edge_deploy.report.validation_page import validation_page
from partitioner.simulator.validation import ValidateRequest, Validation

__all__ = ["measure_simulator"]

TRACES = (
    "traces/hsdpa_3g_norway/3Glogs.tar.gz::report.2010-09-13_1003CEST.json",
    "traces/ghent_4g_lte/4Glogs.tar.gz::report_bus_0001.json",
)
SECONDS, RATE_HZ = 30.0, 5.0
# Less than the process would like to have: its threads, and probes that run beside requests.
EDGE_CORES = 0.8
# A model that the edge takes as long for as the link does for its input, so that the cut moves with the link.
SLOW_SECONDS, SLOW_RATE_HZ, SLOW_EDGE_CORES = 90.0, 1.0, 0.25


def measure_simulator(*, seconds: float = SECONDS, slow_seconds: float = SLOW_SECONDS) -> dict[str, Any]:
    """Errors of the simulator's median and 95th percentile, by condition, and the link that there really was."""
    data = development_data()
    traces = tuple(str(data / trace) for trace in TRACES)
    small = ValidateRequest(
        artifact=data / MODEL,
        traces=traces,
        policies=("hysteresis",),
        seconds=seconds,
        rate_hz=RATE_HZ,
        edge_cores=EDGE_CORES,
    )
    slow = ValidateRequest(
        artifact=write_slow_model(HOME / "slow" / "slow.tflite"),
        traces=traces[:1],
        cuts=(ALL_CLOUD, ALL_EDGE),
        policies=("hysteresis",),
        seconds=slow_seconds,
        rate_hz=SLOW_RATE_HZ,
        edge_cores=SLOW_EDGE_CORES,
    )
    return _both({name: _validated(name, request) for name, request in (("small", small), ("slow", slow))})


def _validated(name: str, request: ValidateRequest) -> Validation:
    found = validate_simulation(request)
    folder = HOME / "validation" / name
    folder.mkdir(parents=True, exist_ok=True)
    write_json(found, folder / "validation.json")
    Path(folder / "index.html").write_text(validation_page(found), encoding="utf-8")
    return found


def _both(found: dict[str, Validation]) -> dict[str, Any]:
    """One row of all; conditions and links bear the model's name."""
    rows = {name: _row(each) for name, each in found.items()}
    return {
        "conditions": {f"{name}: {key}": row for name, each in rows.items() for key, row in each["conditions"].items()},
        "links": {f"{name}: {key}": row for name, each in rows.items() for key, row in each["links"].items()},
        "how": {name: {key: each[key] for key in ("shaped_by", "edge", "cloud")} for name, each in rows.items()},
    }


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
                "switches": f"{each.switches[0]} live, {each.switches[1]} simulated",
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
