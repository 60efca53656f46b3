"""The table of a model's artifacts: size, likeness to the float model, metric, verdict, latency."""

from __future__ import annotations

from edge_deploy.core.artifact import Comparison, PairedDifference
from edge_deploy.core.benchmark import BenchmarkReport, Ratio, percentiles, ratio
from edge_deploy.core.errors import BadInput
from edge_deploy.core.units import format_bytes, format_seconds
from edge_deploy.report.collect import Entry, Model
from edge_deploy.report.look import badge, named
from edge_deploy.report.markup import Child, Markup, element, join
from edge_deploy.report.tables import Column, table

__all__ = ["IDENTICAL_DB", "artifact_table", "latency_ratio", "measured_where", "metric_name", "worst"]

IDENTICAL_DB = 200.0
METRICS = {"accuracy": "Accuracy", "auc": "AUC", "log_loss": "Log loss"}
VERDICTS = {"passed": "good", "not resolved": "fair", "not asked": "plain"}


def artifact_table(model: Model) -> Markup:
    """One row an artifact."""
    metrics = dict.fromkeys(d.metric for entry in model.entries for d in entry.artifact.verification.differences)
    where = measured_where(model, with_processor=False)
    columns: list[Column[Entry]] = [
        Column(title="Artifact", cell=named),
        Column(title="Precision", cell=_precision),
        Column(title="Size", cell=_size, numeric=True),
        Column(title="of float32", cell=lambda e: _size_ratio(model, e), numeric=True),
        Column(title="SNR", cell=_snr, numeric=True, group="against the float model"),
        Column(title="Same top-1", cell=_agreement, numeric=True, group="against the float model"),
        *(_metric_column(metric) for metric in metrics),
        Column(title="Verdict", cell=_verdict),
        Column(title="Latency p50", cell=_latency, numeric=True, group=where),
        Column(title="of float32", cell=lambda e: _latency_ratio(model, e), numeric=True, group=where),
    ]
    return table(columns, model.entries)


def measured_where(model: Model, *, with_processor: bool = True) -> str:
    """How and where the latencies of a model came about, e.g. "measured on this host, 1 thread"."""
    reports = [entry.benchmark for entry in model.entries if entry.benchmark]
    places = dict.fromkeys(_place(report, with_processor=with_processor) for report in reports)
    return "; ".join(places)


def metric_name(metric: str) -> str:
    """As a reader calls it."""
    return METRICS.get(metric, metric)


def worst(entry: Entry) -> Comparison | None:
    """The comparison in which the artifact was least like its source."""
    return min(entry.artifact.verification.comparisons, key=lambda found: found.snr_db, default=None)


def latency_ratio(model: Model, entry: Entry) -> Ratio | str | None:
    """Latency over that of the float32 artifact; a text where the two must not be compared; None without either."""
    base = model.float_of(entry)
    if base is None or base.benchmark is None or entry.benchmark is None:
        return None
    try:
        return ratio(entry.benchmark, base.benchmark)
    except BadInput:
        return "not measured together"


def difference_of(entry: Entry, metric: str) -> PairedDifference | None:
    """The paired difference of this metric."""
    return next((d for d in entry.artifact.verification.differences if d.metric == metric), None)


def _place(report: BenchmarkReport, *, with_processor: bool) -> str:
    threads = f"{report.conditions.threads} thread" + ("s" if report.conditions.threads > 1 else "")
    here = "this host" if report.device.kind == "host" else report.device.name
    processor = f" ({report.machine.cpu_model})" if with_processor else ""
    return f"{report.provenance} on {here}{processor}, {threads}"


def _precision(entry: Entry) -> Child:
    spec = entry.artifact.spec
    if spec.is_float:
        return "float32"
    more = []
    if spec.fallback_bits:
        more.append("fallback " + ("float" if spec.fallback_bits == 32 else f"INT{spec.fallback_bits}"))
    if spec.io != "float":
        more.append(f"in/out {spec.io.upper()}")
    return join(
        [
            element("span", f"{spec.weight_bits}-bit weights", css="named"),
            element("small", ", ".join(more)) if more else "",
        ]
    )


def _size_ratio(model: Model, entry: Entry) -> Child | None:
    base = model.float_of(entry)
    return None if base is None else f"{entry.artifact.device_bytes / base.artifact.device_bytes:.3f}"


def _size(entry: Entry) -> Child:
    weights = sum(outcome.weight_bytes + outcome.beside_bytes for outcome in entry.artifact.outcomes)
    below = element("small", f"weights {weights / 1e6:.3f} MB") if weights else ""
    return join([format_bytes(entry.artifact.device_bytes), below])


def _snr(entry: Entry) -> Child | None:
    found = worst(entry)
    if found is None:
        return None
    if not all(comparison.finite for comparison in entry.artifact.verification.comparisons):
        return badge("not finite", "bad")
    likeness = "identical" if found.snr_db >= IDENTICAL_DB else f"{found.snr_db:.1f} dB"
    return join([likeness, element("small", f"cosine {found.cosine:.5f}")])


def _agreement(entry: Entry) -> Child | None:
    found = worst(entry)
    if found is None or found.top1_agreement is None:
        return None
    return join([f"{100 * found.top1_agreement:.1f} %", element("small", f"{found.samples} samples")])


def _metric_column(metric: str) -> Column[Entry]:
    return Column(title=metric_name(metric), cell=lambda entry: _metric(entry, metric), numeric=True)


def _metric(entry: Entry, metric: str) -> Child | None:
    found = difference_of(entry, metric)
    if found is None:
        return None
    if metric == "accuracy":
        value = f"{100 * found.artifact:.1f} %"
        change = f"{100 * found.difference:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"
    else:
        value = f"{found.artifact:.4f}"
        change = f"{found.difference:+.4f} ({found.low:+.4f} to {found.high:+.4f})"
    return join([value, element("small", change, attributes={"title": f"paired, {found.samples} samples, 95 %"})])


def _verdict(entry: Entry) -> Child:
    verdict = entry.artifact.verification.verdict
    return badge(verdict, VERDICTS.get(verdict, "plain"))


def _latency(entry: Entry) -> Child | None:
    if entry.benchmark is None:
        return None
    summary = percentiles(entry.benchmark)
    spread = f"{format_seconds(summary.p10_s)} to {format_seconds(summary.p90_s)}"
    return join([format_seconds(summary.p50_s), element("small", spread)])


def _latency_ratio(model: Model, entry: Entry) -> Child | None:
    found = latency_ratio(model, entry)
    if found is None or isinstance(found, str):
        return None if found is None else element("small", found)
    interval = f"{found.low:.3f} to {found.high:.3f}" if found.resolved else "not resolved"
    return join([f"{found.median:.3f}", element("small", interval)])
