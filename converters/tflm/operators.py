"""Every operator of a .tflite file tried alone on TensorFlow Lite Micro's own kernels, before anything is flashed.

A whole model stops at its first refusal; one operator at a time names them all. Each is prepared and run in a
child process: an operator that ends the process is a refusal too.
"""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

from edge_deploy.core.child import run_in_child
from edge_deploy.core.errors import BadInput, Refusal, ToolchainError, Unsupported

__all__ = ["check_operators", "refused_operators"]

TIMEOUT_S = 600.0
NOISE = re.compile(r"^Node \S+ \(number \d+\) failed to prepare.*$|^Failed to get registration from op code.*$")


def check_operators(path: Path) -> None:
    """Refuse a file that TensorFlow Lite Micro cannot run.

    Raises:
        Unsupported: Names every layer that its kernels refuse.
        BadInput: Damaged.
        MissingExtra: The wheel is not installed.
    """
    refusals = refused_operators(path)
    if refusals:
        raise Unsupported(refusals=refusals)


def refused_operators(path: Path) -> tuple[Refusal, ...]:
    """The layers that its kernels refuse, with their types and its own words; empty where all are taken.

    Raises:
        BadInput: Damaged.
        ToolchainError: The child could not be started.
        MissingExtra: The wheel is not installed.
    """
    from runtimes.formats.tflite_file import read_tflite
    from runtimes.formats.tflite_layers import layer_names

    graph = read_tflite(path).subgraphs[0]
    names, refusals, start = layer_names(graph), [], 0
    with tempfile.TemporaryDirectory(prefix="edge-deploy-tflm-") as folder:
        progress = Path(folder, "progress.jsonl")
        while start < len(names):
            died = ""
            try:
                run_in_child(
                    "converters.tflm.operators:try_here",
                    {"path": path, "start": start, "progress": progress},
                    stage=f"{path.name}: TensorFlow Lite Micro's operators",
                    timeout_s=TIMEOUT_S,
                )
            except ToolchainError as error:
                died = str(error).splitlines()[0].rpartition(": ")[2]
            told = [json.loads(line) for line in progress.read_text().splitlines()] if progress.exists() else []
            if died and (not told or told[-1]["at"] < start):
                raise ToolchainError(f"{path}: TensorFlow Lite Micro cannot be tried: {died}")
            # The last one is what the child was at when it died.
            words = {each["at"]: each.get("refused", "") for each in told}
            if died:
                words[told[-1]["at"]] = f"ends the process: {died}"
            for at in range(start, max(words, default=start) + 1):
                if words.get(at):
                    refusals.append(Refusal(layer=names[at], op=graph.operators[at].op, reason=words[at]))
            start = told[-1]["at"] + 1 if told else len(names)
    return tuple(refusals)


def try_here(path: str, start: int, progress: str) -> None:
    """The child's part of `refused_operators`: a line before each trial, and one where it is refused."""
    from converters.tflite.flatbuffer import read_model
    from runtimes.micro.interpreter import open_interpreter, run_once

    model = read_model(Path(path))
    graph = model.subgraphs[0]
    with Path(progress).open("a", encoding="utf-8") as file:
        for at in range(start, len(graph.operators)):
            print(json.dumps({"at": at}), file=file, flush=True)  # to a file
            data, types = _alone(model, graph.operators[at])
            try:
                run_once(open_interpreter(data, where=""), where="")
            except BadInput as error:
                words = str(error).partition("refuses it: ")[2].split("; ")
                kept = [word for word in words if not NOISE.match(word) and "allocate" not in word]
                reason = f"TensorFlow Lite Micro refuses {types}: {'; '.join(kept) or '; '.join(words)}"
                print(json.dumps({"at": at, "refused": reason}), file=file, flush=True)  # to a file


def _alone(model: Any, operator: Any) -> tuple[bytes, str]:
    """A model of this operator only, its computed inputs as the model's; and the types of what it takes and gives."""
    from copy import copy

    from converters.tflite.flatbuffer import dtype_name, has_data, schema, write_model

    used = [int(i) for i in (*(operator.inputs if operator.inputs is not None else ()), *operator.outputs) if i >= 0]
    places = {index: place for place, index in enumerate(dict.fromkeys(used))}
    graph, whole = schema().SubGraphT(), schema().ModelT()
    source = model.subgraphs[0].tensors
    whole.version, whole.description = 3, b"one operator"
    whole.operatorCodes = [model.operatorCodes[operator.opcodeIndex]]
    whole.buffers = [schema().BufferT()]
    graph.tensors, graph.inputs = [], []
    for index, place in places.items():
        tensor = copy(source[index])
        if has_data(model, tensor):
            whole.buffers.append(copy(model.buffers[tensor.buffer]))
            tensor.buffer = len(whole.buffers) - 1
        else:
            tensor.buffer = 0
            if index not in operator.outputs:
                graph.inputs.append(place)
        graph.tensors.append(tensor)
    only = copy(operator)
    only.opcodeIndex = 0
    given = operator.inputs if operator.inputs is not None else ()
    only.inputs = [places[int(i)] if i >= 0 else -1 for i in given]
    only.outputs = [places[int(i)] for i in operator.outputs]
    graph.operators, graph.outputs, graph.name = [only], list(only.outputs), b"main"
    whole.subgraphs, whole.metadata, whole.signatureDefs = [graph], [], []
    types = " x ".join(dtype_name(source[int(i)]) for i in given if i >= 0)
    types += " to " + ", ".join(dtype_name(source[int(i)]) for i in operator.outputs)
    with tempfile.TemporaryDirectory(prefix="edge-deploy-tflm-") as folder:
        file = Path(folder, "one.tflite")
        write_model(whole, file)
        return file.read_bytes(), types
