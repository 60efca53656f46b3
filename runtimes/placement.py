"""Which kernels run each layer of a model here: seen by the runtime's profiler, not read off a table of rules."""

from __future__ import annotations

from pathlib import Path

from runtimes.calling import zeros_for
from runtimes.formats.tflite_file import read_tflite
from runtimes.formats.tflite_layers import layer_names
from runtimes.formats.tflite_signatures import PRIMARY, file_signatures

__all__ = ["BY_RULE", "IN_FILE", "OBSERVED", "observed_placement"]

OBSERVED = "seen by the runtime's profiler on this machine"
BY_RULE = "by the rules of runtimes.formats.tflite_kernels: no profiler of this runtime is known here"
IN_FILE = "as the file says: delegated parts are compiled into it"


def observed_placement(path: Path) -> dict[str, str] | None:
    """ "XNNPACK" or "builtin" by layer, as `runtimes.formats.tflite.read_facts` names layers.

    Every signature is run on zeros in a child process. None where no profiler of the installed runtime is known, or it
    fails on this model; the layers of a signature that cannot be run are left out.
    """
    from runtimes.litert_profiler import observed_kernels

    model = read_tflite(path)
    subgraphs = {signature.key: signature.subgraph for signature in model.signatures} or {PRIMARY: 0}
    found: dict[str, str] = {}
    for signature in file_signatures(model):
        number = subgraphs[signature.name]
        graph = model.subgraphs[number]
        seen = observed_kernels(path, zeros_for(signature), signature=signature.name, subgraph=number)
        if seen is None:
            continue
        prefix = f"{graph.name or number}/" if number else ""
        found |= {prefix + name: seen[name] for name in layer_names(graph)}
    return found or None
