"""`edge-deploy study`: adaptive-dnn, scission, sweep."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_deploy.cli.output import AsJson, print_json, print_table, progress_bar

if TYPE_CHECKING:
    from edge_deploy.api.study import Study
    from partitioner.study.findings import Findings

__all__ = ["app"]

app = typer.Typer(
    help="Study what moving a cut gains, measured or modelled.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"max_content_width": 120},
)


@app.command("adaptive-dnn")
def adaptive_dnn(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="A CSV with the columns cut_layer, total_s, edge_s, cloud_s and one for each factor; a folder of "
            "them; or folders of weights_<5 digits>.txt.",
        ),
    ],
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Write study.json and report.html there.")] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the resampling behind the intervals.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace DIR if it exists.")] = False,
    as_json: AsJson = False,
) -> None:
    """Analyse a measured sweep of conditions and cuts.

    Which factor drives edge, transfer and cloud time; how often the best cut moves; what moving it gains over the best
    static cut, on the same noisy sample and held-out.
    """
    from edge_deploy.api.study import study_measured_sweep, write_study

    with progress_bar(2) as progress:
        study = study_measured_sweep(path, seed=seed, progress=progress)
    page = write_study(study, out, force=force) if out else None
    if as_json:
        print_json({"study": study, "report": page})
        return
    print_study(study)
    if page:
        print(f"report: {page}")


@app.command("scission")
def scission(
    path: Annotated[
        Path,
        typer.Argument(metavar="PATH", help="Folder with layers.csv and network_stats.csv, or a table of blocks."),
    ],
    model: Annotated[str, typer.Option(metavar="NAME", help="Model in the table.")] = "vgg19",
    network: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Table of links; default: network_stats.csv beside the blocks."),
    ] = None,
    must: Annotated[
        list[str],
        typer.Option(metavar="TIER=LAYER", help="This layer runs on this tier, e.g. device=6. Repeatable."),
    ] = [],  # noqa: B006
    input_bytes: Annotated[int, typer.Option(metavar="N", help="Bytes of the model's input.", min=0)] = 150_000,
    top: Annotated[int, typer.Option(metavar="N", help="Layouts to show.", min=1)] = 5,
    as_json: AsJson = False,
) -> None:
    """Lay a model's blocks out over device, edge and cloud.

    The fastest layouts from measured tables of blocks and links. The published answers for VGG19 come out with
    --must device=6 --must edge=7 --must cloud=13.
    """
    from edge_deploy.api.study import study_scission
    from edge_deploy.core.errors import BadInput

    wanted: dict[str, list[int]] = {}
    for text in must:
        tier, _, layer = text.partition("=")
        if not layer.strip().isdigit():
            raise BadInput(f"--must {text}: must be TIER=LAYER, e.g. device=6.")
        wanted.setdefault(tier.strip(), []).append(int(layer))
    found = study_scission(path, model=model, network=network, input_bytes=input_bytes, must=wanted, top=top)
    if as_json:
        print_json({"model": model, "answers": list(found)})
        return
    rows = [
        (
            f"{each.total_s:.4f}",
            f"{each.compute_s:.4f}",
            f"{each.link_s:.4f}",
            ", ".join(f"{tier} {each.machines[tier]} to layer {each.ends[tier]}" for tier in each.machines),
        )
        for each in found
    ]
    print_table(f"{model}: fastest layouts", ("seconds", "compute", "links", "layout"), rows)


@app.command("sweep")
def sweep(
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of the sweep; one that holds a part of it is gone on with.")
    ],
    nets: Annotated[
        list[str], typer.Option("--net", metavar="NAME", help="Only this net. Repeatable; default: all eight.")
    ] = [],  # noqa: B006
    edge_slower: Annotated[
        float, typer.Option(metavar="FACTOR", help="The edge is taken to be this many times slower than this host.")
    ] = 4.0,
    measure: Annotated[
        int,
        typer.Option(metavar="N", help="Really run N random pairs of a cut and a condition, for the model's error."),
    ] = 500,
    repeats: Annotated[int, typer.Option(metavar="N", help="Requests of each of these pairs.")] = 1,
    seed: Annotated[int, typer.Option(metavar="N", help="Of weights, inputs and the draw of pairs.")] = 0,
    engine: Annotated[str, typer.Option(metavar="NAME", help="local or dask.")] = "local",
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Of the dask scheduler, e.g. tcp://10.0.0.5:8786.")
    ] = None,
    jobs: Annotated[int, typer.Option(metavar="N", help="Processes of the local engine.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Model our own sweep of eight CNNs.

    233 cuts (234 published) under 40,500 conditions: over 9 million points, modelled from layer times that are measured
    here. Resumes where it was killed.
    """
    from edge_deploy.api.sweep import sweep as run_sweep
    from edge_deploy.zoo.adaptive_dnn_nets import NETS

    with progress_bar(40) as progress:
        study = run_sweep(
            out,
            nets=nets or tuple(NETS),
            edge_slower=edge_slower,
            measure=measure,
            repeats=repeats,
            seed=seed,
            engine=engine,
            scheduler=scheduler,
            jobs=jobs,
            progress=progress,
        )
    if as_json:
        print_json({"study": study, "report": out / "report.html"})
        return
    print_study(study)
    for note in study.notes:
        print(f"note: {note}")
    print(f"report: {out / 'report.html'}")


def print_study(study: Study) -> None:
    """Tables of what was found, and one sentence for each model."""
    findings = study.findings
    rows = [
        (
            each.name,
            f"{each.conditions:,}",
            str(each.cuts),
            f"{each.moved} of {each.conditions}",
            f"{each.static_s:.4g}",
            f"{each.chosen.mean_s:.4g}" if each.chosen else "-",
            f"{each.oracle_s:.4g}",
            f"{each.oracle_gain:.1%}",
            f"{each.chosen.gain:+.1%}" if each.chosen else "-",
            _of_the_gap(each),
        )
        for each in findings
    ]
    columns = ("model", "conditions", "cuts", "best cut moves in", "static s", "held-out s", "oracle s")
    print_table(
        f"{study.provenance} sweep {study.source}: moving the cut",
        (*columns, "oracle gain", "held-out gain", "of the gap (95 %)"),
        rows,
    )
    factors = list(dict.fromkeys(name for each in findings for name in each.factors))
    shares = [
        (
            each.name,
            part.part,
            *(f"{part.shares[name]:.0%}" if name in part.shares else "" for name in factors),
            f"{part.rest:.0%}",
        )
        for each in findings
        for part in each.variance
    ]
    print_table("share of the variance of log time by factor", ("model", "time", *factors, "rest"), shares)
    _print_keys(study)
    if study.model_error:
        errors = [
            (
                each.net,
                str(each.pairs),
                f"{each.median:.1%}",
                f"{each.p95:.1%}",
                f"{each.bias:+.1%}",
                f"{each.rank:.3f}",
            )
            for each in study.model_error
        ]
        heads = ("model", "pairs", "median error", "p95", "bias", "rank correlation")
        print_table("the model against pairs that were really run", heads, errors)
    for each in findings:
        print(each.verdict)


def _of_the_gap(found: Findings) -> str:
    if found.chosen is None:
        return "-"
    interval = f" ({found.chosen.low:+.0%} to {found.chosen.high:+.0%})" if found.noisy else ""
    return f"{found.chosen.share:+.0%}{interval}"


def _print_keys(study: Study) -> None:
    """Look-ups by what they know: the share of the gap each captures, held-out."""
    every = list(dict.fromkeys((each.policy, each.key) for found in study.findings for each in found.captured))
    keys = [(policy, key) for policy, key in every if len(key) <= 1 or policy in ("model", "chosen")]
    rows = []
    for policy, key in keys:
        cells = []
        for found in study.findings:
            mine = next((each for each in found.captured if (each.policy, each.key) == (policy, key)), None)
            cells.append(f"{mine.share:+.0%} ({mine.same_sample_share:+.0%})" if mine else "")
        names = {"model": "main effects of all factors", "chosen": "the policy chosen on other conditions"}
        rows.append((names.get(policy, " + ".join(key) or "nothing (held-out static)"), *cells))
    models = tuple(found.name for found in study.findings)
    more = f"; {len(every) - len(keys)} combinations in --json" if len(every) > len(keys) else ""
    print_table(
        "captured of the gap, held-out (on the same sample), by what the policy knows" + more, ("knows", *models), rows
    )
