"""Reference vectors: seeded random inputs of a full-integer file and what the reference kernels make of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from converters.c.graph import Graph, Tensor, read_graph
from converters.c.project import Vectors
from edge_deploy.core.artifact import Signature
from edge_deploy.core.child import run_in_child

__all__ = ["VECTORS", "random_inputs", "reference_vectors"]

VECTORS = 16
WIDE_ID = 1 << 30


def reference_vectors(path: Path, graph: Graph, folder: Path) -> Vectors:
    """Run in a child process, because a reference kernel may end the process that calls it.

    Args:
        folder: For the arrays on their way; nothing stays in it.

    Raises:
        ToolchainError: The interpreter died.
    """
    file = folder / "vectors.npz"
    try:
        run_in_child(
            "converters.c.vectors:run_here", {"path": path, "out": file}, stage=f"reference vectors of {path.name}"
        )
        with np.load(file, allow_pickle=False) as arrays:
            inputs = tuple(arrays[f"in_{index}"] for index in range(len(graph.inputs)))
            outputs = tuple(arrays[f"out_{index}"] for index in range(len(graph.outputs)))
    finally:
        file.unlink(missing_ok=True)
    return Vectors(inputs=inputs, outputs=outputs)


def run_here(path: str, out: str) -> None:
    """The child's part of `reference_vectors`."""
    from runtimes.session import open_session

    graph = read_graph(Path(path))
    inputs = random_inputs(graph, VECTORS)
    session = open_session(Path(path), kernels="reference", trusted=True)
    signature: Signature = session.signature
    answers: list[list[np.ndarray]] = [[] for _ in signature.outputs]
    for number in range(VECTORS):
        given = {info.name: inputs[place][number] for place, info in enumerate(signature.inputs)}
        answer = session.run(given)
        for place, info in enumerate(signature.outputs):
            answers[place].append(answer[info.name])
    arrays = {f"in_{index}": array for index, array in enumerate(inputs)}
    arrays |= {f"out_{index}": np.stack(rows) for index, rows in enumerate(answers)}
    with Path(out).open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # names are ours


def random_inputs(graph: Graph, count: int, *, seed: int = 0) -> tuple[np.ndarray, ...]:
    """[count, ...] for each input: all values of eight bits, floats around 0, ids that every table has."""
    generator = np.random.default_rng(seed)
    rows = _smallest_table(graph)

    def values(tensor: Tensor) -> np.ndarray:
        shape = (count, *tensor.shape)
        if tensor.dtype == "float32":
            return generator.standard_normal(shape).astype(np.float32)
        if tensor.dtype in ("int8", "uint8"):
            kind = np.iinfo(tensor.dtype)
            return generator.integers(kind.min, kind.max, shape, dtype=tensor.dtype, endpoint=True)
        return generator.integers(0, rows, shape).astype(tensor.dtype)

    return tuple(values(tensor) for tensor in graph.inputs)


def _smallest_table(graph: Graph) -> int:
    """Ids below this are valid everywhere; where the graph clamps them, all are."""
    if any(node.op == "MINIMUM" and node.outputs[0].dtype == "int32" for node in graph.nodes):
        return WIDE_ID
    sizes = [
        node.inputs[0].shape[int(node.option("axis", 0))]
        for node in graph.nodes
        if node.op == "GATHER" and node.inputs[0] is not None and node.inputs[1] is not None
    ]
    return min(sizes, default=WIDE_ID)
