"""Find the smallest, or fastest, mix of precisions within a measured loss, and confirm it on unseen samples."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from converters.capture import capture
from converters.contracts import Captured
from converters.debugger.rigs import bits_of
from converters.search.assignment import Assignment, Option, front, spread_over
from converters.search.finding import SearchPoint, SearchReport
from converters.search.sensitivity import Sensitivity, Uniform, measure_sensitivity
from edge_deploy.api.profile import profile
from edge_deploy.api.search_data import Part, split_samples
from edge_deploy.api.search_folder import open_folder
from edge_deploy.api.search_outcome import describe, write
from edge_deploy.api.search_points import Points, Wanted, mixed_spec, uniform_spec
from edge_deploy.api.search_request import SearchRequest
from edge_deploy.api.search_times import timed
from edge_deploy.core.errors import Unsupported
from edge_deploy.core.profile import ModelProfile
from edge_deploy.core.serde import read_json, write_json

__all__ = ["search"]

SENSITIVITY = "sensitivity.json"
RECOMMENDER_SAMPLES = 1024  # computed in NumPy, many at a time
PROFILE_SECONDS, PREFIXES = 0.3, 8
MOST_CLOSING = 4  # conversions that close in on the cheapest point within the limit
Progress = Callable[[str], None]


def search(request: SearchRequest, *, progress: Progress = lambda stage: None) -> SearchReport:
    """Search, and write everything into `request.out`; a second call with the same request goes on where it ended.

    Writes `points/NAME` (artifacts), `sensitivity.json`, `chosen.toml`, `search.json` and `search.html`.

    Args:
        progress: Called with the name of each stage as it begins.

    Raises:
        BadInput: The model, the data or an option is not what it must be, or the folder belongs to another search.
        Unsupported: The model has no layer with weights, or none can have the widths that are asked.
        ToolchainError: A third-party converter or runtime failed.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="edge-deploy-") as scratch:
        work = Path(scratch)
        (work / "captured").mkdir()
        progress(f"capture {request.capture.source}")
        captured = capture(request.capture, work / "captured")
        part, unseen = split_samples(captured, request.evaluate, request.confirm, request.evaluate_limit, work)
        open_folder(request, part, unseen)
        points = Points(request, part, progress)
        uniform = _uniform(request, points)
        progress("measure sensitivity")
        sensitivity = _sensitivity(request, captured, points, uniform, part)
        options, unit = _options(request, points, uniform, sensitivity)
        assignments = front(options)
        found = _points(request, points, assignments, options, uniform, started)
        notes: tuple[str, ...] = ()
        if request.aim == "speed":
            progress("time the points in turns")
            found, notes = timed(found, points.folder)
        report = describe(request, captured, found, assignments, sensitivity, points, part, unseen, work, unit, notes)
        write(request, report, points)
    return report


def _uniform(request: SearchRequest, points: Points) -> dict[int, SearchPoint]:
    """The model at each width alone; those below 16 bits are needed for sensitivities."""
    wanted = []
    for bits in sorted({*request.widths, 8}):
        spec = uniform_spec(request.spec, bits)
        wanted.append(Wanted(name=spec.name, spec=spec, bits={}, expected_noise=None, cost=0.0))
    found = dict(zip(sorted({*request.widths, 8}), points.evaluated(wanted), strict=True))
    if found[8].failure:
        raise Unsupported(f"the model cannot be had at INT8, which mixed precisions start from: {found[8].failure}")
    return found


def _sensitivity(
    request: SearchRequest, captured: Captured, points: Points, uniform: Mapping[int, SearchPoint], part: Part
) -> Sensitivity:
    path = request.out / SENSITIVITY
    if path.is_file():
        return read_json(Sensitivity, path)
    opened = [
        Uniform(bits=bits, opened=points.opened(point.name))
        for bits, point in uniform.items()
        if bits < 16 and not point.failure
    ]
    limit = request.sensitivity_samples
    if captured.recommender is not None:
        limit = max(limit, RECOMMENDER_SAMPLES)
    found = measure_sensitivity(captured, opened, part.feeds, limit=limit)
    write_json(found, path)
    return found


def _options(
    request: SearchRequest, points: Points, uniform: Mapping[int, SearchPoint], sensitivity: Sensitivity
) -> tuple[dict[str, list[Option]], str]:
    """What each layer may have, and the unit of its cost."""
    usable = {bits: point for bits, point in uniform.items() if bits in request.widths and not point.failure}
    costs, unit = _seconds(points, usable) if request.aim == "speed" else _bytes(points, uniform)
    found: dict[str, list[Option]] = {}
    for layer, noise in sensitivity.noise.items():
        found[layer] = [
            Option(bits=bits, cost=costs[bits].get(layer, 0.0), noise=noise[key])
            for bits in usable
            for key in [str(min(bits, 32)) if bits < 16 else "32"]
            if key in noise and bits in costs
        ]
        if not found[layer]:  # none of the widths that were asked: it stays as INT8 made it
            found[layer] = [Option(bits=8, cost=0.0, noise=noise.get("8", 0.0))]
    return found, unit


def _bytes(points: Points, uniform: Mapping[int, SearchPoint]) -> tuple[dict[int, dict[str, float]], str]:
    eight = {outcome.layer: outcome for outcome in points.artifact(uniform[8].name).outcomes}
    counts = {
        layer: outcome.weight_bytes * 8 / outcome.weight_bits if outcome.weight_bits else 0.0
        for layer, outcome in eight.items()
    }
    return {bits: {layer: count * bits / 8 for layer, count in counts.items()} for bits in (4, 8, 16, 32)}, (
        "bytes of weights"
    )


def _seconds(points: Points, usable: Mapping[int, SearchPoint]) -> tuple[dict[int, dict[str, float]], str]:
    """Seconds of each layer in the model at each width alone, as the host's runtime measures them."""
    found = {bits: dict(_profiled(points.folder / point.name).layer_s) for bits, point in usable.items()}
    return found, "seconds of layers with weights, profiled on this host at each width alone"


def _profiled(folder: Path) -> ModelProfile:
    """By the runtime's profiler where it tells layers apart, be they off by a few percent: points are timed whole."""
    try:
        return profile(folder, how="profiler", min_seconds=PROFILE_SECONDS)
    except Unsupported:
        return profile(folder, most_prefixes=PREFIXES)


def _points(
    request: SearchRequest,
    points: Points,
    assignments: Sequence[Assignment],
    options: Mapping[str, Sequence[Option]],
    uniform: Mapping[int, SearchPoint],
    started: float,
) -> list[SearchPoint]:
    """Points over the whole front, then closer and closer to where the limit is crossed."""
    costs = {layer: {option.bits: option for option in found} for layer, found in options.items()}
    found = [_as_uniform(point, bits, points, costs) for bits, point in uniform.items()]
    alike = [point.bits for point in found if not point.failure]
    mixed = [assignment for assignment in assignments if dict(assignment.bits) not in alike]
    known: dict[int, SearchPoint] = {}

    def evaluate(places: Sequence[int]) -> None:
        new = [place for place in places if place not in known]
        for place, point in zip(new, points.evaluated([_wanted(request, mixed[p]) for p in new]), strict=True):
            known[place] = replace(point, cost=mixed[place].cost, expected_noise=mixed[place].noise)

    if mixed and not _is_late(request, started):
        evaluate([mixed.index(assignment) for assignment in spread_over(mixed, request.points)])
    for _ in range(MOST_CLOSING):
        place = _between(known, request.max_drop, len(mixed))
        if place is None or _is_late(request, started):
            break
        evaluate([place])
    return sorted([*found, *known.values()], key=lambda point: point.cost)


def _is_late(request: SearchRequest, started: float) -> bool:
    return request.budget_s is not None and time.monotonic() - started > request.budget_s


def _between(known: Mapping[int, SearchPoint], max_drop: float, count: int) -> int | None:
    """The middle between the cheapest assignment that is good enough and the dearest below it that is not."""
    good = [place for place, point in known.items() if point.drop <= max_drop]
    first_good = min(good, default=count)
    last_bad = max((place for place in known if place < first_good), default=-1)
    middle = (last_bad + first_good) // 2
    return middle if last_bad < middle < first_good and middle not in known else None


def _wanted(request: SearchRequest, assignment: Assignment) -> Wanted:
    bits = dict(assignment.bits)
    name = "mix-" + hashlib.sha256(json.dumps(bits, sort_keys=True).encode()).hexdigest()[:12]
    return Wanted(
        name=name,
        spec=mixed_spec(request.spec, bits, name),
        bits=bits,
        expected_noise=assignment.noise,
        cost=assignment.cost,
    )


def _as_uniform(
    point: SearchPoint, bits: int, points: Points, costs: Mapping[str, Mapping[int, Option]]
) -> SearchPoint:
    """A uniform point with the widths its layers really have, and what they cost by the search's own measure."""
    if point.failure:
        return point
    got = bits_of(points.artifact(point.name).outcomes)
    known = {layer: got.get(layer, bits) for layer in costs}
    options = [costs[layer][width] for layer, width in known.items() if width in costs[layer]]
    noise = sum(option.noise for option in options) if len(options) == len(known) else None
    return replace(point, bits=known, cost=sum(option.cost for option in options), expected_noise=noise)
