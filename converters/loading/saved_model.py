"""Load a TensorFlow SavedModel's serving signature, of TensorFlow 2 or 1, as a function of constants."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_deploy.core.errors import BadInput, EdgeDeployError, Refusal, ToolchainError, Unsupported
from edge_deploy.core.require import require
from edge_deploy.core.tensor import TensorInfo

__all__ = ["LoadedSavedModel", "load_saved_model"]

SERVING = "serving_default"
# Operators of a graph that reach beyond it: files, Python, the network. Nothing that serves a model needs them.
REACHING_OUT = re.compile(
    r"(PyFunc|EagerPyFunc|PyFuncStateless|ReadFile|WriteFile|MatchingFiles|Print\w*|Send|Recv|\w*Dataset\w*|Rpc\w*|"
    r"Debug\w*|LoadLibrary|\w*Summary\w*|Restore\w*|Save\w*|InitializeTableFromTextFile\w*)"
)


LOOPS = ("While", "StatelessWhile", "LoopCond")
"""Of TensorFlow 2, and the condition of each loop of TensorFlow 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedSavedModel:
    """A SavedModel's signature in memory, its weights frozen into constants.

    Attributes:
        inputs: As the signature declares them; -1 stands for a dynamic dimension.
        notes: What the user should know of the loading.
    """

    function: Any
    inputs: tuple[TensorInfo, ...]
    output_names: tuple[str, ...]
    notes: tuple[str, ...]
    variables: tuple[Any, ...] = ()
    layer_names: tuple[str, ...] = ()

    def call(self, arrays: list[Any]) -> list[Any]:
        """The outputs for inputs in call order."""
        tf = require("tensorflow", extra="export-tflite")
        feeds = [tf.cast(array, info.dtype) for info, array in zip(self.inputs, arrays, strict=True)]
        return list(tf.nest.flatten(self.function(*feeds)))


def load_saved_model(folder: Path) -> LoadedSavedModel:
    """The signature "serving_default", or the only one.

    Raises:
        BadInput: Damaged folder, no signature or several, a weight that is NaN or infinite.
        Unsupported: The graph reads or writes files, or calls Python.
        ToolchainError: TensorFlow cannot load it, neither as a TensorFlow 2 nor as a TensorFlow 1 model.
    """
    reasons = []
    for load in (_load_v2, _load_v1):
        try:
            loaded = load(folder)
        except EdgeDeployError:
            raise
        except Exception as error:  # noqa: BLE001  # TensorFlow raises whatever it likes; every reason is reported below
            reasons.append(f"{load.__name__[-2:]}: {type(error).__name__}: {str(error).strip().splitlines()[0][:200]}")
            continue
        _check_graph(folder, loaded.function.graph)
        return loaded
    told = "; ".join(reasons)
    if any(kind in told for kind in ("DataLossError", "NotFoundError", "DecodeError", "OutOfRangeError", "OSError")):
        raise BadInput(f"{folder}: is truncated or damaged ({told}); copy it again from its origin.")
    raise ToolchainError(f"{folder}: TensorFlow cannot load it. {told}.")


def _load_v2(folder: Path) -> LoadedSavedModel:
    tf = require("tensorflow", extra="export-tflite")
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    loaded = tf.saved_model.load(str(folder))
    signature = loaded.signatures[_only(folder, list(loaded.signatures))]
    specs = signature.structured_input_signature[1]
    outputs = sorted(signature.structured_outputs)
    frozen = convert_variables_to_constants_v2(signature)
    # A frozen function takes its inputs in the graph's order, and gives outputs in the order of their sorted names.
    names = [tensor.name.partition(":")[0] for tensor in frozen.inputs]
    order = [next((name for name in specs if name == raw or raw.endswith(f"_{name}")), raw) for raw in names]
    inputs = tuple(_info(name, tensor) for name, tensor in zip(order, frozen.inputs, strict=True))
    return LoadedSavedModel(
        function=frozen,
        inputs=inputs,
        output_names=tuple(outputs),
        notes=(f"SavedModel loaded by tensorflow {tf.__version__}",),
    )


def _load_v1(folder: Path) -> LoadedSavedModel:
    tf = require("tensorflow", extra="export-tflite")
    v1 = tf.compat.v1
    graph = tf.Graph()
    with graph.as_default(), v1.Session(graph=graph) as session:
        meta = v1.saved_model.load(session, [tf.saved_model.SERVING], str(folder))
        signature = meta.signature_def[_only(folder, [key for key in meta.signature_def if not key.startswith("__")])]
        inputs, outputs = dict(signature.inputs), dict(signature.outputs)
        finals = [entry.name.partition(":")[0] for entry in outputs.values()]
        frozen = v1.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), finals)
    wrapped = v1.wrap_function(lambda: v1.import_graph_def(frozen, name=""), [])
    function = wrapped.prune(
        [wrapped.graph.as_graph_element(entry.name) for entry in inputs.values()],
        [wrapped.graph.as_graph_element(entry.name) for entry in outputs.values()],
    )
    return LoadedSavedModel(
        function=function,
        inputs=tuple(_info(name, tensor) for name, tensor in zip(inputs, function.inputs, strict=True)),
        output_names=tuple(outputs),
        notes=(f"SavedModel of TensorFlow 1 loaded by tensorflow {tf.__version__}",),
    )


def _only(folder: Path, keys: list[str]) -> str:
    if SERVING in keys:
        return SERVING
    if len(keys) != 1:
        raise BadInput(
            f"{folder}: signatures {', '.join(keys) or 'none'}: must have one named {SERVING}, or exactly one; save "
            "the model again with signatures=."
        )
    return keys[0]


def _info(name: str, tensor: Any) -> TensorInfo:
    if tensor.shape.rank is None:
        raise BadInput(f"input {name}: the signature does not say its rank; save the model with an input signature.")
    shape = tuple(-1 if size is None else int(size) for size in tensor.shape)
    return TensorInfo(name=name, shape=shape, dtype=np.dtype(tensor.dtype.as_numpy_dtype).name)


def _check_graph(folder: Path, graph: Any) -> None:
    tf = require("tensorflow", extra="export-tflite")
    definition = graph.as_graph_def()
    nodes = [*definition.node, *(node for function in definition.library.function for node in function.node_def)]
    refusals = tuple(
        Refusal(layer=node.name, op=node.op, reason="reaches beyond the model: files, Python or the network")
        for node in nodes
        if REACHING_OUT.fullmatch(node.op)
    )
    if refusals:
        raise Unsupported(f"{folder}: the serving graph does more than compute.", refusals=refusals[:10])
    loops = dict.fromkeys(_loop_layer(node.name) for node in definition.node if node.op in LOOPS)
    if loops:
        raise Unsupported(
            f"{folder}: is not a plain feed-forward model.",
            refusals=tuple(
                Refusal(
                    layer=layer,
                    op="loop",
                    reason="a recurrent layer: only plain feed-forward graphs are converted",
                    remedy="build it with unroll=True for a fixed number of steps, or replace it by convolutions",
                )
                for layer in loops
            ),
        )
    problems = []
    for node in nodes:
        if node.op == "Const":
            values = tf.make_ndarray(node.attr["value"].tensor)
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                bad = int(values.size - np.isfinite(values).sum())
                problems.append(f"{folder}: weight {node.name}: {bad} of {values.size} values are NaN or infinite.")
    if problems:
        raise BadInput(*problems)


def _loop_layer(node: str) -> str:
    """The layer that a node of a loop belongs to: "net/memory" of ".../net/memory/while/LoopCond"."""
    parts = [part for part in node.split("/") if not part.startswith(("StatefulPartitionedCall", "PartitionedCall"))]
    until = next((place for place, part in enumerate(parts) if part.startswith("while")), len(parts) - 1)
    return "/".join(parts[:until]) or node
