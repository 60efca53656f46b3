"""Recommenders on ExecuTorch compute what their structure says, at every precision, batch and number of threads."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("executorch")
torch = pytest.importorskip("torch")

from converters.contracts import Captured, LowerRequest  # noqa: E402
from converters.executorch import recommender  # noqa: E402
from converters.executorch.recommender_restore import restore  # noqa: E402
from converters.recommender.model import Dense, Interaction, Lookup, Recommender, Table, save  # noqa: E402
from converters.recommender.reference import run_reference  # noqa: E402
from edge_deploy.core.errors import BadInput, Unsupported  # noqa: E402
from edge_deploy.core.quant_spec import LayerRule, spec_for_recipe  # noqa: E402
from edge_deploy.core.tensor import TensorInfo  # noqa: E402
from runtimes.backends.executorch import open_session  # noqa: E402
from runtimes.formats.pte import read_facts  # noqa: E402

BATCH = 16


class Maker:
    """Structures with random weights."""

    def __init__(self, seed=0):
        self.generator = np.random.default_rng(seed)
        self.arrays = {}

    def table(self, name, rows, dim):
        self.arrays[f"array {name}"] = self.generator.normal(0, 0.1, (rows, dim))
        return Table(name=name, rows=rows, dim=dim, weight=f"array {name}")

    def dense(self, name, inputs, outputs, activation, bias=True):
        self.arrays[f"{name} weight"] = self.generator.normal(0, inputs**-0.5, (outputs, inputs))
        if bias:
            self.arrays[f"{name} bias"] = self.generator.normal(0, 0.1, outputs)
        return Dense(
            name=name,
            weight=f"{name} weight",
            bias=f"{name} bias" if bias else None,
            in_features=inputs,
            out_features=outputs,
            activation=activation,
        )


def floats(name, columns):
    return TensorInfo(name=name, shape=(-1, columns), dtype="float32")


def ids(name, columns, dtype="int64"):
    return TensorInfo(name=name, shape=(-1, columns), dtype=dtype)


def dot_model():
    """Odd numbers of inputs, as 13 dense features and 367 of the top MLP in the real thing, and very small weights."""
    make = Maker()
    rows = (50, 7, 200, 33)
    tables = tuple(make.table(f"emb.{index}", count, 8) for index, count in enumerate(rows))
    pairs = (*((a, b) for a in range(5) for b in range(a)), (0, 0))
    model = Recommender(
        inputs=(floats("dense", 5), ids("sparse", 4)),
        output=TensorInfo(name="score", shape=(-1, 1), dtype="float32", meaning="probability"),
        tables=tables,
        lookups=tuple(Lookup(table=index, input="sparse", column=index) for index in range(4)),
        interaction=Interaction(kind="dot", vectors=(0, -1, 1, 2, 3), pairs=pairs, top_inputs=("bottom", "pairs")),
        bottom=(make.dense("bottom.0", 5, 16, "relu"), make.dense("bottom.1", 16, 8, "relu")),
        top=(make.dense("top.0", 19, 32, "relu"), make.dense("top.1", 32, 1, "none")),
        dense_input="dense",
        output_activation="sigmoid",
    )
    for name, factor in (("top.0 weight", 1e-4), ("top.0 bias", 1e-4), ("top.1 weight", 1e4)):
        make.arrays[name] *= factor
    return model, make.arrays


def mixed_model():
    """Pooled look-ups of every kind, a shared table, widths of 6, 5 and 1, int32 ids, no bottom MLP, a flat logit."""
    make = Maker(1)
    model = Recommender(
        inputs=(
            floats("numbers", 3),
            ids("user", 1),
            ids("history", 6, "int32"),
            ids("tags", 4),
            floats("tag_weights", 4),
        ),
        output=TensorInfo(name="logit", shape=(-1,), dtype="float32", meaning="logit"),
        tables=(
            make.table("users", 40, 6),
            make.table("items", 90, 6),
            make.table("tags", 25, 5),
            make.table("bias", 40, 1),
        ),
        lookups=(
            Lookup(table=0, input="user"),
            Lookup(table=1, input="history", length=5, pooling="mean", padding_index=0),
            Lookup(table=1, input="history", column=5),
            Lookup(table=2, input="tags", length=4, pooling="sum", weights_input="tag_weights"),
            Lookup(table=2, input="tags", column=1, length=2, pooling="sum"),
            Lookup(table=3, input="user"),
        ),
        interaction=Interaction(
            kind="concat",
            top_inputs=("lookup:0", "lookup:2", "dense:numbers", "lookup:3", "lookup:1", "lookup:4", "lookup:5"),
        ),
        top=(
            make.dense("head.0", 6 * 3 + 5 * 2 + 3 + 1, 24, "tanh"),
            make.dense("head.1", 24, 7, "relu", bias=False),
            make.dense("head.2", 7, 1, "none"),
        ),
    )
    return model, make.arrays


def feeds_of(model, seed=2):
    generator = np.random.default_rng(seed)
    feeds = {}
    for info in model.inputs:
        if info.dtype == "float32":
            feeds[info.name] = generator.normal(size=(BATCH, info.shape[1])).astype(np.float32)
        else:
            rows = min(model.tables[k.table].rows for k in model.lookups if k.input == info.name)
            feeds[info.name] = generator.integers(0, rows, (BATCH, info.shape[1])).astype(info.dtype)
    return feeds


@dataclasses.dataclass
class Made:
    model: Recommender
    arrays: dict
    folder: object
    lowered: object

    def run(self, feeds, *, batch=BATCH, threads=1):
        signature = next(s for s in self.lowered.signatures if s.inputs[0].shape[0] == batch)
        session = open_session(self.folder / "model.pte", signature=signature, threads=threads)
        try:
            parts = [
                session.run({name: array[start : start + batch] for name, array in feeds.items()})
                for start in range(0, BATCH, batch)
            ]
        finally:
            session.close()
        return np.concatenate([part[signature.outputs[0].name] for part in parts])

    def reference(self, feeds):
        return run_reference(self.model, self.arrays, feeds, batch=BATCH)


def make(folder, structure, spec, batches=(1, BATCH)):
    model, arrays = structure
    save(model, arrays, folder / "recommender")
    captured = Captured(
        name="model",
        framework="torch",
        kind="recommender",
        folder=folder,
        inputs=model.inputs,
        outputs=(model.output,),
        batches=batches,
        recommender=folder / "recommender",
    )
    out = folder / "out"
    out.mkdir()
    return Made(model, arrays, out, recommender.lower(LowerRequest(captured=captured, spec=spec, folder=out)))


SPECS = {
    "float32": spec_for_recipe("float32"),
    "int8": spec_for_recipe("int8"),
    "int4": spec_for_recipe("int4"),
    "int4 tables": spec_for_recipe("int4", table_scale="table"),
    "int4 everywhere": spec_for_recipe("int4", mlp_bits=4),
}


@pytest.fixture(scope="module")
def dot(tmp_path_factory):
    made = {}

    def of(name):
        if name not in made:
            made[name] = make(tmp_path_factory.mktemp("dot"), dot_model(), SPECS[name])
        return made[name]

    return of


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    made = {}

    def of(name):
        if name not in made:
            made[name] = make(tmp_path_factory.mktemp("mixed"), mixed_model(), SPECS[name])
        return made[name]

    return of


def logits(scores):
    return np.log(scores / (1 - scores))


def snr_db(want, got):
    return 10 * np.log10(np.square(want).sum() / np.square(want - got).sum())


@pytest.mark.parametrize(("name", "least"), [("int8", 30), ("int4", 25), ("int4 tables", 20), ("int4 everywhere", 12)])
def test_quantized_scores_stay_near_the_float_ones(dot, name, least):
    made, feeds = dot(name), feeds_of(dot_model()[0])
    assert snr_db(logits(made.reference(feeds)), logits(made.run(feeds))) > least


def test_float_scores_are_those_of_the_structure(dot, mixed):
    for made in (dot("float32"), mixed("float32")):
        feeds = feeds_of(made.model)
        want = made.reference(feeds)
        assert made.run(feeds).shape == want.shape
        np.testing.assert_allclose(made.run(feeds), want, atol=1e-5)
        np.testing.assert_allclose(made.run(feeds, batch=1), want, atol=1e-5)


def test_pooled_look_ups_of_odd_width_survive_four_bits(mixed):
    made, feeds = mixed("int4"), feeds_of(mixed_model()[0])
    assert snr_db(made.reference(feeds), made.run(feeds)) > 15


@pytest.mark.parametrize("name", list(SPECS))
def test_one_and_two_threads_and_both_batches_agree(dot, name):
    made, feeds = dot(name), feeds_of(dot_model()[0])
    whole = made.run(feeds)
    np.testing.assert_array_equal(made.run(feeds, threads=2), whole)
    np.testing.assert_allclose(made.run(feeds, batch=1), whole, atol=1e-6)
    np.testing.assert_allclose(made.run(feeds, batch=1, threads=2), whole, atol=1e-6)


@pytest.mark.parametrize("name", list(SPECS))
def test_ids_outside_their_table_read_its_first_or_last_row(dot, name):
    made, feeds = dot(name), feeds_of(dot_model()[0])
    for wrong, right in ((-1, [0, 0, 0, 0]), (2**40, [49, 6, 199, 32]), (-(2**62), [0, 0, 0, 0])):
        outside = {**feeds, "sparse": np.full((BATCH, 4), wrong, np.int64)}
        inside = {**feeds, "sparse": np.tile(np.array(right, np.int64), (BATCH, 1))}
        np.testing.assert_array_equal(made.run(outside), made.run(inside))


def test_outcomes_name_every_table_and_linear_with_the_bits_in_the_file(dot):
    for name, bits, linear in (("float32", 32, 32), ("int8", 8, 8), ("int4", 4, 8), ("int4 everywhere", 4, 4)):
        made = dot(name)
        by_name = {outcome.layer: outcome for outcome in made.lowered.outcomes}
        assert set(by_name) == {"emb.0", "emb.1", "emb.2", "emb.3", "bottom.0", "bottom.1", "top.0", "top.1"}
        assert {by_name[f"emb.{k}"].weight_bits for k in range(4)} == {bits}
        assert {by_name[layer].weight_bits for layer in ("bottom.1", "top.1")} == {linear}
        assert by_name["emb.2"].weight_bytes == 200 * 8 * bits // 8
        facts = {fact.layer: fact for fact in read_facts(made.folder / "model.pte") if fact.weight_count}
        assert facts["tables"].weight_bits == bits and facts["tables"].weight_bytes == 290 * bits
        assert facts["top.0"].weight_bits == linear and facts["top.0"].runs_on == "XNNPACK"


def test_odd_inputs_of_four_bit_linears_are_padded_and_said_so(dot):
    reasons = {outcome.layer: outcome.reason for outcome in dot("int4 everywhere").lowered.outcomes}
    assert "even number" in reasons["bottom.0"] and "even number" in reasons["top.0"]
    assert reasons["top.1"] == ""


def test_no_table_is_stored_twice(dot):
    kept = torch.export.load(dot("int8").folder / "quantized.pt2")
    rows = {name: tuple(value.shape) for name, value in kept.state_dict.items() if name.endswith("rows")}
    assert rows == {"lookups.0.rows": (2, 8)}


@pytest.mark.parametrize("name", ["int8", "int4", "int4 tables"])
def test_the_kept_program_gets_its_tables_back_from_the_model_file(dot, name):
    made, feeds = dot(name), feeds_of(dot_model()[0])
    with torch.no_grad():
        restored = restore(made.folder)(*(torch.from_numpy(feeds[info.name]) for info in made.model.inputs))
    restored = restored[0] if isinstance(restored, (tuple, list)) else restored
    assert snr_db(logits(restored.numpy()), logits(made.run(feeds))) > 30


def test_a_folder_without_the_kept_program_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"quantized\.pt2: cannot be read"):
        restore(tmp_path)


def test_the_graph_names_layers_as_the_file_does_and_counts_all_their_bytes(mixed):
    lowered = mixed("int4").lowered
    names = {layer.name for layer in lowered.graph.layers}
    assert {outcome.layer for outcome in lowered.outcomes if "linear" in outcome.op} <= names
    assert {"head.0", "head.1", "head.2"} <= names
    assert lowered.graph.weight_bytes == sum(outcome.weight_bytes for outcome in lowered.outcomes)


def test_rules_give_layers_other_widths(tmp_path):
    rules = (LayerRule(pattern="emb.1", weight_bits=8), LayerRule(pattern="top.1", weight_bits=32))
    made = make(tmp_path, dot_model(), spec_for_recipe("int4", rules=rules), batches=(BATCH,))
    bits = {outcome.layer: outcome.weight_bits for outcome in made.lowered.outcomes}
    assert (bits["emb.0"], bits["emb.1"], bits["top.0"], bits["top.1"]) == (4, 8, 8, 32)
    feeds = feeds_of(made.model)
    assert snr_db(logits(made.reference(feeds)), logits(made.run(feeds))) > 25


@pytest.mark.parametrize(
    ("changes", "message"), [({"for_device": "mcu"}, "--to tflite --for mcu"), ({"io": "int8"}, "take --io float")]
)
def test_what_executorch_cannot_have_is_refused_with_the_way_out(tmp_path, changes, message):
    with pytest.raises(Unsupported, match=message):
        make(tmp_path, dot_model(), spec_for_recipe("int8", **changes))


def test_weights_that_are_not_finite_are_refused_by_layer(tmp_path):
    model, arrays = dot_model()
    arrays["array emb.2"][3, 1] = np.nan
    with pytest.raises(BadInput, match=r"layer emb\.2: 1 of 1600 weights"):
        make(tmp_path, (model, arrays), SPECS["int8"])
