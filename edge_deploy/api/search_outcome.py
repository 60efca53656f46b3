"""What a search says of its points: the front, the chosen one, its confirmation, how well expectations ordered them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from converters.contracts import Captured
from converters.search.assignment import Assignment
from converters.search.finding import SearchPoint, SearchReport
from converters.search.rank import rank_correlation
from converters.search.sensitivity import Sensitivity
from converters.verify import logistic
from edge_deploy.api.debug_case import measured_answers
from edge_deploy.api.debug_fix import convert_command, recipe_text
from edge_deploy.api.search_data import Part
from edge_deploy.api.search_points import Points, mixed_spec
from edge_deploy.api.search_request import SearchRequest
from edge_deploy.core.artifact import Artifact, PairedDifference
from edge_deploy.core.quant_spec import QuantSpec, spec_for_recipe
from edge_deploy.core.serde import dumps
from edge_deploy.zoo.metrics import paired_difference

__all__ = ["describe", "write"]

JSON, PAGE, RECIPE = "search.json", "search.html", "chosen.toml"


def describe(
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
    notes: Sequence[str],
) -> SearchReport:
    """The report on all points, with the chosen one confirmed on samples that the search did not use."""
    made = [point for point in found if not point.failure]
    mixed = [point for point in made if not point.is_uniform]
    ranked = [point for point in made if point.expected_noise is not None]
    size = _seconds if request.aim == "speed" else _bytes
    good = [point for point in made if point.drop <= request.max_drop]
    chosen = min(good, key=lambda point: (size(point), point.drop)) if good else None
    confirmation = None if chosen is None else _confirmed(captured, points.folder / chosen.name, unseen, work)
    expected = [point.expected_noise or 0.0 for point in ranked]
    told = [f"{point.name}: {point.failure}" for point in found if point.failure]
    told += notes
    told.append(
        f"{len(assignments)} assignments on the expected front, {len(mixed)} of them converted; sensitivities of "
        f"{len(sensitivity.noise)} layers on {sensitivity.samples} samples"
    )
    spec = None if chosen is None else _told_spec(request, points.artifact(chosen.name), chosen.bits)
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
        noise_rank=rank_correlation(expected, [-point.snr_db for point in ranked]),
        drop_rank=rank_correlation(expected, [point.drop for point in ranked]),
        ranked=len(ranked),
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
        notes=tuple(told),
    )


def _bytes(point: SearchPoint) -> float:
    return float(point.device_bytes)


def _seconds(point: SearchPoint) -> float:
    assert point.seconds is not None, "points are timed where the fastest is searched"
    return point.seconds


def _told_spec(request: SearchRequest, artifact: Artifact, bits: Mapping[str, int]) -> QuantSpec:
    """A spec that a precision's name or a recipe file can tell: MLPs of other bits than usual become rules."""
    spec = artifact.spec
    is_usual = artifact.kind != "recommender" or spec.mlp_bits == spec_for_recipe(spec.recipe).mlp_bits
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


def write(request: SearchRequest, report: SearchReport, points: Points) -> None:
    """Write `chosen.toml`, where there are rules, `search.json` and `search.html`."""
    from edge_deploy.report.document import write_page
    from edge_deploy.report.search_page import search_page

    if report.recipe:
        bits = next(point.bits for point in report.points if point.name == report.chosen)
        spec = _told_spec(request, points.artifact(report.chosen), bits)
        text = recipe_text(spec, f"{report.model} {report.target}: {report.aim} at most {report.max_drop:g} lost")
        (request.out / RECIPE).write_text(text, encoding="utf-8")
    partial = request.out / f".{JSON}.partial"
    partial.write_text(dumps(report), encoding="utf-8")
    partial.replace(request.out / JSON)
    write_page(search_page(report), request.out / PAGE)
