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
    """List the names that options take.

    Targets for --to, runtimes for --backend, devices for --device, data sets for --calibrate and --eval (they are read
    from the folder that the environment variable EDGE_DEPLOY_DATA names).
    """
    from device_tests.device_list import device_names
    from edge_deploy.core import registry
    from edge_deploy.core.quant_spec import RECIPES
    from edge_deploy.zoo.description import built_in_names

    known = {kind: list(registry.names(package)) for kind, package in FOLDERS.items()}
    known["precisions"] = list(RECIPES)
    known["devices"] = list(device_names())
    known["datasets"] = list(built_in_names())
    if as_json:
        print_json(known)
        return
    for kind, found in known.items():
        print(f"{kind + ':':12} {', '.join(found)}")
