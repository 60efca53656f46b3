"""Studies put together: read a sweep, analyse it, write what was found as JSON and as a page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_deploy.core.errors import BadInput
from edge_deploy.core.publish import published_folder
from edge_deploy.core.serde import write_json
from partitioner.study.findings import Findings, analyse
from partitioner.study.model_error import ErrorSummary, Pair
from partitioner.study.scission import INPUT_BYTES, Answer, answers, read_blocks, read_links
from partitioner.study.sweep_table import read_sweeps

__all__ = ["PAGE", "STUDY", "Study", "study_measured_sweep", "study_scission", "write_study"]

STUDY, PAGE = "study.json", "report.html"


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """What a study found.

    Attributes:
        provenance: "measured" or "modelled".
        notes: What the reader should know about the data.
        model_error: Of a modelled sweep against measured pairs: over all, then by model; empty where none were run.
        pairs: Those pairs.
    """

    source: str
    provenance: str
    findings: tuple[Findings, ...]
    notes: tuple[str, ...] = ()
    model_error: tuple[ErrorSummary, ...] = ()
    pairs: tuple[Pair, ...] = ()


def study_measured_sweep(path: Path, *, seed: int = 0, progress: Callable[[str], None] = lambda stage: None) -> Study:
    """Analyse measured sweeps of seconds by condition and cut; see `partitioner.study.sweep_table.read_sweeps`.

    Args:
        seed: Of the resampling behind the intervals.

    Raises:
        BadInput: No sweep there, or a bad one.
    """
    progress(f"read {path}")
    sweeps = read_sweeps(path)
    found = []
    for sweep in sweeps:
        progress(f"analyse {sweep.name}")
        found.append(analyse(sweep, seed=seed))
    repeats = max(each.repeats for each in found)
    notes = [
        "Factors of the condition: " + ", ".join(dict.fromkeys(name for each in found for name in each.factors)) + "."
    ]
    if repeats > 1:
        notes.append(f"Up to {repeats} values of one cut under one condition were averaged.")
    return Study(source=path.name or str(path), provenance="measured", findings=tuple(found), notes=tuple(notes))


def study_scission(
    path: Path,
    *,
    model: str,
    network: Path | None = None,
    input_bytes: int = INPUT_BYTES,
    must: Mapping[str, Sequence[int]] | None = None,
    top: int = 5,
) -> tuple[Answer, ...]:
    """The fastest layouts of a model over device, edge and cloud, from tables of Scission's shape.

    Args:
        path: The table of blocks, or a folder with layers.csv and network_stats.csv.
        network: The table of links; default: network_stats.csv beside the blocks.
        must: By tier: layers that run there.

    Raises:
        BadInput: A table is missing or bad, or has no such model.
        NoFeasiblePlan: No layout keeps to `must`.
    """
    blocks_path = path / "layers.csv" if path.is_dir() else path
    tables = read_blocks(blocks_path)
    if model not in tables:
        raise BadInput(f"{blocks_path}: no model {model!r}; it has {', '.join(sorted(tables))}.")
    links = read_links(network or blocks_path.with_name("network_stats.csv"))
    return answers(tables[model], links, input_bytes=input_bytes, must=must, top=top)


def write_study(study: Study, out: Path, *, force: bool = False) -> Path:
    """Write study.json and report.html to a new folder `out`; returns the page.

    Raises:
        BadInput: `out` exists and `force` is not set, or cannot be written.
    """
    from edge_deploy.report.study_page import study_page

    with published_folder(out, force=force) as folder:
        write_json(study, folder / STUDY)
        page = study_page(study.findings, source=study.source, provenance=study.provenance, notes=study.notes)
        (folder / PAGE).write_text(page, encoding="utf-8")
    return out / PAGE
