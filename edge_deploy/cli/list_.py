"""`edge-deploy list`."""

from __future__ import annotations

from typing import Annotated

import typer

from edge_deploy.cli.output import AsJson, print_json, print_table

__all__ = ["command"]

FOLDERS = {
    "sources": "converters.sources",
    "targets": "converters.targets",
    "runtimes": "runtimes.backends",
    "transports": "device_tests.transports",
    "traces": "partitioner.traces.formats",
    "generators": "partitioner.traces.generators",
    "engines": "partitioner.engine.engines",
    "solvers": "partitioner.solvers",
    "policies": "partitioner.policies",
}


def command(
    kind: Annotated[
        str | None, typer.Argument(metavar="KIND", help="One kind alone, e.g. targets; devices with what they have.")
    ] = None,
    support: Annotated[
        bool, typer.Option("--support", help="Also what each target makes of each operator under each recipe.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the names that options take.

    Targets for --to, runtimes for --backend, devices for --device, codecs for --codec, policies for --policy, data sets
    for --calibrate and --eval (they are read from the folder that the environment variable EDGE_DEPLOY_DATA names).
    """
    from converters.support import entries, targets
    from device_tests.device_list import address_forms, device_names
    from device_tests.tasks.task import suite_names, task_names
    from edge_deploy.core import registry
    from edge_deploy.core.quant_spec import RECIPES
    from edge_deploy.zoo.description import built_in_names
    from runtimes.codecs import codec_names

    known = {kind: list(registry.names(package)) for kind, package in FOLDERS.items()}
    known["codecs"] = list(codec_names())
    known["precisions"] = list(RECIPES)
    known["devices"] = list(device_names())
    known["datasets"] = list(built_in_names())
    known["tasks"] = list(task_names())
    known["suites"] = [*suite_names(), "all"]
    known["device addresses"] = list(address_forms())
    if kind is not None:
        _print_kind(kind, known, as_json=as_json)
        return
    if as_json:
        table = {"support": [entry for target in targets() for entry in entries(target)]} if support else {}
        print_json({**known, **table})
        return
    for name, found in known.items():
        print(f"{name + ':':12} {', '.join(found)}")
    if support:
        for target in targets():
            print()
            _print_support(target)


def _print_kind(kind: str, known: dict[str, list[str]], *, as_json: bool) -> None:
    import difflib

    from edge_deploy.core.errors import BadInput

    if kind == "devices":
        _print_devices(known["device addresses"], as_json=as_json)
    elif kind in known:
        if as_json:
            print_json({kind: known[kind]})
        else:
            print("\n".join(known[kind]))
    else:
        close = difflib.get_close_matches(kind, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}."
        raise BadInput(f"list {kind}: unknown; {hint}")


def _print_devices(addresses: list[str], *, as_json: bool) -> None:
    from device_tests.device_list import device_names, find_device
    from edge_deploy.cli.output import human_bytes

    devices = [find_device(name) for name in device_names()]
    if as_json:
        print_json({"devices": devices, "device addresses": addresses})
        return
    rows = [
        (
            each.name,
            each.kind,
            " + ".join(part for part in (f"{each.cores} ({each.core or each.isa})", each.npu) if part),
            f"{each.clock_hz / 1e6:g} MHz" if each.clock_hz else "",
            human_bytes(each.ram_bytes),
            human_bytes(each.ram_block_bytes) if each.ram_block_bytes else "",
            human_bytes(each.flash_bytes) if each.flash_bytes else "",
        )
        for each in devices
    ]
    print_table("devices", ("name", "kind", "cores (the fastest)", "clock", "RAM", "of it in one piece", "flash"), rows)
    print(f"or an address: {', '.join(addresses)}; or NAME@ADDRESS; or a .toml file")


def _print_support(target: str) -> None:
    from converters.support import RECIPE_KINDS, entries, lookup

    found = entries(target)
    operators = sorted({entry.operator for entry in found} - {"*"})
    # Operators that a recipe does not list fall under its "*"; those whose every cell reads alike share a row.
    rows: dict[tuple[tuple[str, ...], tuple[tuple[str, str], ...]], list[str]] = {}
    for operator in (*operators, "*"):
        cells = [lookup(target, recipe, operator) for recipe in RECIPE_KINDS]
        why = tuple((cell.recipe, cell.reason) for cell in cells if cell.reason and operator == cell.operator)
        rows.setdefault((tuple(cell.status for cell in cells), why), []).append(operator)
    # Reasons are sentences: they stand below, once each.
    notes = list(dict.fromkeys(reason for _, why in rows for _, reason in why))
    names = {"*": "all others"}
    table = []
    for (cells_of, why), alike in rows.items():
        marks = dict(why)
        told = [
            f"{status} [{notes.index(marks[recipe]) + 1}]" if recipe in marks else status
            for recipe, status in zip(RECIPE_KINDS, cells_of, strict=True)
        ]
        table.append((", ".join(names.get(each, each) for each in alike), *told))
    print_table(
        f"{target}: what becomes of an operator (-dynamic: recommenders for phones; -plain: --plain-pte)",
        ("operator", *RECIPE_KINDS),
        table,
    )
    for number, note in enumerate(notes, start=1):
        print(f"[{number}] {note}")
