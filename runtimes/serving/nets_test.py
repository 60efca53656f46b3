"""Small artifacts written by hand, whole and as tails, for the tests of this package."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("grpc")
pytest.importorskip("prometheus_client")

from edge_deploy.core.artifact import Artifact, FileEntry, LayerOutcome, SplitOrigin
from edge_deploy.core.digest import file_sha256
from edge_deploy.core.layer_graph import LayerGraph
from edge_deploy.core.quant_spec import QuantSpec
from edge_deploy.core.serde import write_json
from runtimes.formats.by_hand_test import ByHand, dense, look_up
from runtimes.formats.tflite import read_signatures

CUT = "002-c0ffee"


def write_artifact(folder: Path, hand: ByHand, *, name: str, origin: SplitOrigin | None = None) -> Path:
    folder.mkdir(parents=True)
    model = hand.write(folder / "model.tflite")
    entry = FileEntry(path="model.tflite", role="model", bytes=model.stat().st_size, sha256=file_sha256(model))
    found = read_signatures(model)
    artifact = Artifact(
        name=name,
        format="tflite",
        spec=QuantSpec(recipe="float32"),
        source="by hand",
        kind="generic",
        files=(entry,),
        source_inputs=found[0].inputs,
        source_outputs=found[0].outputs,
        signatures=found,
        graph=LayerGraph(inputs=(), outputs=(), layers=()),
        outcomes=(LayerOutcome(layer="a", op="b", asked="float32", got="float32"),),
        toolchain={},
        split=origin,
    )
    write_json(artifact, folder / "manifest.json")
    return folder


def write_halves(folder: Path, *, name: str = "net") -> str:
    """As split leaves them: the whole model for batches of 1, 4 and 8, a tail for a batch of 1; gives the digest."""
    whole = dense((1, 4, 8))
    digest = file_sha256(whole.write(folder / "whole.tflite"))
    origin = SplitOrigin(parent=name, parent_digest=digest, cut="all-cloud", half="whole")
    write_artifact(folder / "all-cloud" / "tail", whole, name=name, origin=origin)
    tail = replace(origin, cut=CUT, half="tail")
    write_artifact(folder / CUT / "tail", dense(), name=f"{name}.{CUT}.tail", origin=tail)
    write_artifact(folder / CUT / "head", dense(), name=f"{name}.{CUT}.head", origin=replace(tail, half="head"))
    return digest


def inputs(rows: int = 1, seed: int = 0) -> dict[str, np.ndarray]:
    """Small integers: their products and sums are exact in whatever order they are taken."""
    rng = np.random.default_rng(seed)
    return {name: rng.integers(-8, 9, (rows, 4)).astype(np.float32) for name in ("a", "b")}


def expected(arrays: dict[str, np.ndarray]) -> np.ndarray:
    kernel = np.arange(12, dtype=np.float32).reshape(3, 4)
    return (arrays["b"] - arrays["a"]) @ kernel.T


def write_look_up(folder: Path) -> Path:
    """A table of 100 rows: ids beyond them are an error of whoever sends them."""
    return write_artifact(folder / "table", look_up(), name="table")
