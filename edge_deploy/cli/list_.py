"""`edge-deploy list`."""

from __future__ import annotations

from edge_deploy.cli.output import AsJson, print_json

__all__ = ["command"]

FOLDERS = {
    "sources": "converters.sources",
    "targets": "converters.targets",
    "runtimes": "runtimes.backends",
    "transports": "device_tests.transports",
}


def command(as_json: AsJson = False) -> None:
    """What this installation knows: sources, targets, precisions, runtimes, devices."""
    from edge_deploy.core import registry
    from edge_deploy.core.quant_spec import RECIPES

    known = {kind: list(registry.names(package)) for kind, package in FOLDERS.items()}
    known["precisions"] = list(RECIPES)
    if as_json:
        print_json(known)
        return
    for kind, found in known.items():
        print(f"{kind + ':':12} {', '.join(found)}")
