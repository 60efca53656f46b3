"""Find the smallest, or fastest, mix of precisions within a measured loss, and confirm it on unseen samples."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from converters.capture import capture
from converters.contracts import Captured
from converters.debugger.rigs import bits_of
from converters.search.assignment import Assignment, Option, front, spread_over
from converters.search.finding import SearchPoint, SearchReport
from converters.search.rank import rank_correlation
from converters.search.sensitivity import Sensitivity, Uniform, measure_sensitivity
from converters.verify import logistic
from edge_deploy.api.debug_case import measured_answers
from edge_deploy.api.debug_fix import convert_command, recipe_text
from edge_deploy.api.profile import profile
from edge_deploy.api.search_data import Part, split_samples
from edge_deploy.api.search_points import Points, Wanted, mixed_spec, uniform_spec
from edge_deploy.api.search_request import SearchRequest
from edge_deploy.core.artifact import PairedDifference
from edge_deploy.core.digest import file_sha256
from edge_deploy.core.errors import BadInput, Unsupported
from edge_deploy.core.quant_spec import QuantSpec, spec_for_recipe
from edge_deploy.core.serde import dumps, read_json, to_json, write_json
from edge_deploy.zoo.metrics import paired_difference

__all__ = ["search"]

KEY, SENSITIVITY, JSON, PAGE, RECIPE = "key.json", "sensitivity.json", "search.json", "search.html", "chosen.toml"
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
        _open_folder(request, part, unseen)
        points = Points(request, part, progress)
        uniform = _uniform(request, points)
        progress("measure sensitivity")
        sensitivity = _sensitivity(request, captured, points, uniform, part)
        options, unit = _options(request, points, uniform, sensitivity)
        assignments = front(options)
        found = _points(request, points, assignments, options, uniform, started)
        report = _report(request, captured, found, assignments, sensitivity, points, part, unseen, work, unit)
        _write(request, report, points)
    return report


def _open_folder(request: SearchRequest, part: Part, unseen: Part) -> None:
    """Make the folder, or go on in one that the same search began.

    Raises:
        BadInput: It belongs to another search or to something else.
    """
    key = _key(request, part, unseen)
    path = request.out / KEY
    if request.out.exists() and any(request.out.iterdir()):
        if path.is_file() and json.loads(path.read_text(encoding="utf-8")).get("digest") == key:
            return
        if not path.is_file():
            raise BadInput(f"{request.out}: holds other things than a search; choose another --out.")
        if not request.force:
            raise BadInput(
                f"{request.out}: holds a search for another model, data or limits; choose another --out, or --force to "
                "begin anew."
            )
        shutil.rmtree(request.out)
    request.out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"digest": key}), encoding="utf-8")


def _key(request: SearchRequest, part: Part, unseen: Part) -> str:
    """Digest of all that decides what a point is; the limit, the aim and the budget do not."""
    files = [Path(request.capture.source), request.capture.weights, request.calibrate]
    told = {
        "capture": to_json(request.capture),
        "files": [file_sha256(path) if path is not None and path.is_file() else str(path) for path in files],
        "target": request.target,
        "spec": to_json(request.spec),
        "calibrate_limit": request.calibrate_limit,
        "samples": [part.digest, unseen.digest],
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


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
    found = measure_sensitivity(captured, opened, part.feeds, limit=request.sensitivity_samples)
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
    found = {bits: dict(profile(points.folder / point.name).layer_s) for bits, point in usable.items()}
    return found, "seconds of layers with weights, profiled on this host at each width alone"


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
    cost = sum(costs[layer][width].cost for layer, width in known.items() if width in costs[layer])
    return replace(point, bits=known, cost=cost)


def _report(
    request: SearchRequest,
    captured: Captured,
    found: list[SearchPoint],
    assignments: Sequence[Assignment],
    sensitivity: Sensitivity,
    points: Points,
    part: Part,
    unseen: Part,
    work: Path,
    unit: str,
) -> SearchReport:
    made = [point for point in found if not point.failure]
    mixed = [point for point in made if point.expected_noise is not None]
    size: Callable[[SearchPoint], float] = (
        (lambda point: point.cost) if request.aim == "speed" else (lambda point: float(point.device_bytes))
    )
    good = [point for point in made if point.drop <= request.max_drop]
    chosen = min(good, key=size) if good else None
    confirmation = None if chosen is None else _confirmed(captured, points.folder / chosen.name, unseen, work)
    expected = [point.expected_noise or 0.0 for point in mixed]
    notes = [f"{point.name}: {point.failure}" for point in found if point.failure]
    notes.append(
        f"{len(assignments)} assignments on the expected front, {len(mixed)} of them converted; sensitivities of "
        f"{len(sensitivity.noise)} layers on {sensitivity.samples} samples"
    )
    spec = None if chosen is None else _told_spec(request, points.artifact(chosen.name).spec, chosen.bits)
    return SearchReport(
        model=captured.name,
        target=request.target,
        max_drop=request.max_drop,
        aim=request.aim,
        metric=part.metric,
        search_samples=len(part.labels),
        confirm_samples=len(unseen.labels),
        points=tuple(found),
        front=tuple(point.name for point in _front(made, size)),
        chosen=chosen.name if chosen is not None else "",
        verdict=_verdict(confirmation, request.max_drop),
        cost_unit=unit,
        confirmation=confirmation,
        noise_rank=rank_correlation(expected, [-point.snr_db for point in mixed]),
        drop_rank=rank_correlation(expected, [point.drop for point in mixed]),
        recipe=RECIPE if spec is not None and spec.rules else "",
        command=""
        if spec is None
        else convert_command(
            request.capture,
            spec,
            request.target,
            recipe=request.out / RECIPE if spec.rules else None,
            calibrate=request.calibrate,
            calibrate_limit=request.calibrate_limit,
            evaluate=request.evaluate,
            out=request.out.parent / "chosen",
        ),
        notes=tuple(notes),
    )


def _told_spec(request: SearchRequest, spec: QuantSpec, bits: Mapping[str, int]) -> QuantSpec:
    """A spec that a precision's name or a recipe file can tell: MLPs of other bits than usual become rules."""
    is_usual = spec.mlp_bits == spec_for_recipe(spec.recipe).mlp_bits
    return spec if spec.rules or is_usual else mixed_spec(request.spec, bits, "chosen")


def _front(made: Sequence[SearchPoint], size: Callable[[SearchPoint], float]) -> list[SearchPoint]:
    """Points that no other beats in both size and drop."""
    kept: list[SearchPoint] = []
    for point in sorted(made, key=lambda each: (size(each), each.drop)):
        if not kept or point.drop < kept[-1].drop:
            kept.append(point)
    return kept


def _confirmed(captured: Captured, folder: Path, unseen: Part, work: Path) -> PairedDifference:
    with np.load(unseen.answers, allow_pickle=False) as archive:
        want = archive[captured.outputs[0].name]
    got = measured_answers(folder, feeds=unseen.feeds, answers=unseen.answers, work=work)
    rows = len(unseen.labels)
    one, other = want.reshape(rows, -1), got.reshape(rows, -1)
    if unseen.metric == "accuracy":
        return paired_difference("accuracy", unseen.labels, one, other)
    if captured.outputs[0].meaning != "probability":
        one, other = logistic(one), logistic(other)
    return paired_difference("auc", unseen.labels, one, other)


def _verdict(
    found: PairedDifference | None, max_drop: float
) -> Literal["confirmed", "not resolved", "not confirmed", "nothing found"]:
    if found is None:
        return "nothing found"
    if found.difference < -max_drop:
        return "not confirmed"
    return "confirmed" if found.low >= -max_drop else "not resolved"


def _write(request: SearchRequest, report: SearchReport, points: Points) -> None:
    from edge_deploy.report.document import write_page
    from edge_deploy.report.search_page import search_page

    if report.recipe:
        bits = next(point.bits for point in report.points if point.name == report.chosen)
        spec = _told_spec(request, points.artifact(report.chosen).spec, bits)
        text = recipe_text(spec, f"{report.model} {report.target}: {report.aim} at most {report.max_drop:g} lost")
        (request.out / RECIPE).write_text(text, encoding="utf-8")
    partial = request.out / f".{JSON}.partial"
    partial.write_text(dumps(report), encoding="utf-8")
    partial.replace(request.out / JSON)
    write_page(search_page(report), request.out / PAGE)
