"""A DLRM between edge and cloud: private features and hot rows here, cold tables and the top MLP there."""

from __future__ import annotations

import numpy as np
import pytest

from converters.contracts import Captured, LowerRequest
from converters.lower import lower
from converters.recommender.model import Dense, HotRows, Interaction, Lookup, Recommender, Table, save
from edge_deploy.api.cuts import model_to_cut
from edge_deploy.api.plan import PlanRequest, plan_partition
from edge_deploy.api.split import split
from edge_deploy.core.artifact import MANIFEST, Artifact
from edge_deploy.core.conditions import Conditions
from edge_deploy.core.cut import make_cut
from edge_deploy.core.errors import BadInput, NoFeasiblePlan
from edge_deploy.core.layer_rule import LayerRule
from edge_deploy.core.profile import ModelProfile
from edge_deploy.core.quant_spec import spec_for_recipe
from edge_deploy.core.serde import write_json
from edge_deploy.core.tensor import TensorInfo
from partitioner.constraints import Constraints
from runtimes.folder import read_artifact

ROWS, DIM, HOT = {"private": 300, "small": 20, "big": 4000}, 8, 200
NOW = Conditions(uplink_bps=2e6, downlink_bps=8e6, rtt_s=0.02)


@pytest.fixture(scope="module")
def dlrm(tmp_path_factory):
    """A DLRM whose private table has more bits than the others, and whose big one has hot rows."""
    pytest.importorskip("ai_edge_litert")
    folder = tmp_path_factory.mktemp("dlrm")
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=(rows, DIM)).astype(np.float32) for name, rows in ROWS.items()}
    arrays["hot"] = np.sort(rng.choice(ROWS["big"], HOT, replace=False)).astype(np.int64)

    def dense(name, inputs, outputs, activation):
        arrays[f"{name} w"] = (rng.normal(size=(outputs, inputs)) / np.sqrt(inputs)).astype(np.float32)
        return Dense(name=name, weight=f"{name} w", in_features=inputs, out_features=outputs, activation=activation)

    hot = HotRows(ids="hot", count=HOT, bits=16)
    pairs = tuple((a, b) for a in range(4) for b in range(a))
    model = Recommender(
        inputs=(
            TensorInfo(name="age", shape=(1, 5), dtype="float32"),
            TensorInfo(name="mine", shape=(1, 1), dtype="int64", id_bounds=(300,)),
            TensorInfo(name="shown", shape=(1, 2), dtype="int64", id_bounds=(20, 4000)),
        ),
        output=TensorInfo(name="score", shape=(1, 1), dtype="float32", meaning="probability"),
        tables=tuple(
            Table(name=name, rows=rows, dim=DIM, weight=name, hot=hot if name == "big" else None)
            for name, rows in ROWS.items()
        ),
        lookups=(
            Lookup(table=0, input="mine"),
            Lookup(table=1, input="shown", column=0),
            Lookup(table=2, input="shown", column=1),
        ),
        interaction=Interaction(kind="dot", top_inputs=("bottom", "pairs"), vectors=(-1, 0, 1, 2), pairs=pairs),
        bottom=(dense("bottom.0", 5, DIM, "relu"),),
        top=(dense("top.0", DIM + len(pairs), 16, "relu"), dense("top.1", 16, 1, "none")),
        dense_input="age",
        output_activation="sigmoid",
    )
    save(model, arrays, folder / "recommender")
    captured = Captured(
        name="dlrm",
        framework="torch",
        kind="recommender",
        folder=folder,
        inputs=model.inputs,
        outputs=(model.output,),
        batches=(1,),
        recommender=folder / "recommender",
    )
    (folder / "out").mkdir()
    spec = spec_for_recipe("int4", fallback_bits=8, rules=(LayerRule(pattern="private", weight_bits=8),))
    request = LowerRequest(captured=captured, spec=spec, folder=folder / "out", calibration=None)
    lowered = lower("tflite", request)
    artifact = Artifact(
        name=captured.name,
        format="tflite",
        spec=spec,
        source="net",
        kind="recommender",
        files=lowered.files,
        source_inputs=captured.inputs,
        source_outputs=captured.outputs,
        signatures=lowered.signatures,
        graph=lowered.graph,
        outcomes=lowered.outcomes,
        toolchain=lowered.toolchain,
    )
    write_json(artifact, request.folder / MANIFEST)
    return request.folder


def profile(graph, *, speed):
    layers = {layer.name: 1e-6 / speed for layer in graph.layers}
    return ModelProfile(
        artifact="dlrm",
        sha256="",
        device=f"{speed} times",
        kernels="none",
        provenance="estimated",
        source="one microsecond a layer",
        layer_s=layers,
        overhead_s=1e-6,
        whole_s=sum(layers.values()) + 1e-6,
    )


def planned(dlrm, *, edge_speed=1.0, **limits):
    graph = model_to_cut(dlrm).graph
    request = PlanRequest(
        artifact=dlrm,
        edge=profile(graph, speed=edge_speed),
        cloud=profile(graph, speed=100),
        constraints=Constraints(**limits),
    )
    found = plan_partition(request, NOW)
    return make_cut(graph, found.edge_layers[0]), graph, found


def named(graph, *parts):
    return tuple(layer.name for layer in graph.layers if any(part in layer.name for part in parts))


def test_hot_and_private_rows_stay_cold_tables_and_the_top_go_and_the_halves_are_the_whole(dlrm, tmp_path):
    _, graph, _ = planned(dlrm)
    here = named(graph, "private/looked_up", "looked_up_hot")
    there = (*(name for name in named(graph, "looked_up") if name not in here), *named(graph, "top."))
    assert len(here) >= 2 and len(there) >= 4
    cut, _, _ = planned(dlrm, keep_on_edge=here, keep_off_edge=there, private=("mine", "age"))
    crossing = {tensor.name for tensor in cut.up}
    assert not crossing & {"mine", "age", "private/ids/at_least", "private/ids/in_table", "private/rows/flat"}
    assert set(here) <= set(cut.edge_layers) and not set(there) & set(cut.edge_layers)
    split(dlrm, edge_layers=cut.edge_layers, out=tmp_path / "out")  # refused unless head then tail are the whole
    head, tail = (read_artifact(tmp_path / "out" / cut.id / side) for side in ("head", "tail"))
    assert {info.name for info in tail.signatures[0].inputs} == crossing
    assert head.model_file.bytes + tail.model_file.bytes < 1.5 * read_artifact(dlrm).model_file.bytes + 40_000
    # The cold rows are the largest part, and they are in the cloud.
    assert tail.graph.weight_bytes > head.graph.weight_bytes


def test_private_inputs_and_their_ids_never_cross_whatever_is_cheapest(dlrm):
    free, _, _ = planned(dlrm, edge_speed=0.001)
    assert "mine" in {tensor.name for tensor in free.up}
    kept, _, found = planned(dlrm, edge_speed=0.001, private=("mine",))
    assert not any(tensor.name == "mine" or tensor.name.startswith("private/ids") for tensor in kept.up)
    reasons = {each.refused for each in found.considered}
    assert any(reason.startswith("private: mine") for reason in reasons)


def test_wishes_that_cannot_be_had_are_named(dlrm):
    _, graph, _ = planned(dlrm)
    with pytest.raises(BadInput, match="no input named yours in the model; it has"):
        planned(dlrm, private=("yours",))
    with pytest.raises(NoFeasiblePlan, match="private rules out"):
        planned(dlrm, private=("mine",), keep_off_edge=named(graph, "private/looked_up"))
