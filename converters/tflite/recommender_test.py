"""Emitted recommenders run under LiteRT's kernels as their structure says, at every storage of their tables."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")

from ai_edge_litert.interpreter import Interpreter, OpResolverType

from converters.contracts import Captured, LowerRequest
from converters.recommender.model import Dense, Interaction, Lookup, Recommender, Table, save
from converters.recommender.reference import trace_reference
from converters.tflite.emit import Emitter
from converters.tflite.emit_stream import write_streamed
from converters.tflite.flatbuffer import op_name, read_model
from converters.tflite.recommender import emit_hybrid, lower
from converters.tflite.recommender_check import check_tables
from edge_deploy.core.errors import BadInput, Unsupported, VerificationFailed
from edge_deploy.core.quant_spec import LayerRule, spec_for_recipe
from edge_deploy.core.tensor import TensorInfo
from runtimes.formats.tflite import read_facts

KERNELS = {
    "default": OpResolverType.AUTO,
    "builtin": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    "reference": OpResolverType.BUILTIN_REF,
}
ROWS = (40, 7, 300, 1)


def dense_layers(rng, arrays, prefix, widths, last="none"):
    layers = []
    for place, (wide, narrow) in enumerate(itertools.pairwise(widths)):
        name = f"{prefix}.{place}"
        arrays[f"{name}.weight"] = (rng.standard_normal((narrow, wide)) / np.sqrt(wide)).astype(np.float32)
        arrays[f"{name}.bias"] = (0.1 * rng.standard_normal(narrow)).astype(np.float32)
        activation = "relu" if place < len(widths) - 2 else last
        layers.append(
            Dense(
                name=name,
                weight=f"{name}.weight",
                bias=f"{name}.bias",
                in_features=wide,
                out_features=narrow,
                activation=activation,
            )
        )
    return tuple(layers)


def tables_of(rng, arrays, rows, dims):
    tables = []
    for place, (count, dim) in enumerate(zip(rows, dims, strict=True)):
        name = f"table.{place}"
        # Magnitudes differ between tables and rows, so that a wrong scale shows.
        magnitude = 10.0 ** (rng.uniform(-0.7, 0) + rng.uniform(-0.2, 0.2, (count, 1)))
        arrays[name] = (rng.standard_normal((count, dim)) * magnitude).astype(np.float32)
        tables.append(Table(name=name, rows=count, dim=dim, weight=name))
    return tuple(tables)


def dlrm(*, dims=(8, 8, 8, 8), lookups=None, columns=4, sigmoid=True):
    """A dot-interaction DLRM, its id columns in an order of their own."""
    rng = np.random.default_rng(1)
    arrays = {}
    tables = tables_of(rng, arrays, ROWS, dims)
    lookups = lookups or tuple(Lookup(table=(place + 1) % 4, input="ids", column=place) for place in range(4))
    dim = dims[0]
    vectors = (-1, *range(len(lookups)))
    pairs = tuple((a, b) for a in range(len(vectors)) for b in range(a))
    model = Recommender(
        inputs=(
            TensorInfo(name="dense", shape=(-1, 5), dtype="float32"),
            TensorInfo(name="ids", shape=(-1, columns), dtype="int64"),
        ),
        output=TensorInfo(name="score", shape=(-1, 1), dtype="float32", meaning="probability" if sigmoid else "logit"),
        tables=tables,
        lookups=lookups,
        interaction=Interaction(kind="dot", top_inputs=("pairs", "bottom"), vectors=vectors, pairs=pairs),
        bottom=dense_layers(rng, arrays, "bottom", (5, 16, dim), last="relu"),
        top=dense_layers(rng, arrays, "top", (len(pairs) + dim, 16, 1)),
        dense_input="dense",
        output_activation="sigmoid" if sigmoid else "none",
    )
    return model, arrays


def bags(*, padding=True):
    """Concatenated look-ups of odd and even widths: one id, sums, means, with and without padding."""
    rng = np.random.default_rng(2)
    arrays = {}
    tables = tables_of(rng, arrays, ROWS, (3, 8, 3, 8))
    lookups = (
        Lookup(table=0, input="ids", column=0, length=3, pooling="sum", padding_index=2 if padding else None),
        Lookup(table=1, input="ids", column=3, length=2, pooling="mean"),
        Lookup(table=2, input="ids", column=5, length=4, pooling="mean", padding_index=0 if padding else None),
        Lookup(table=3, input="one", column=0),
    )
    model = Recommender(
        inputs=(
            TensorInfo(name="ids", shape=(-1, 9), dtype="int64"),
            TensorInfo(name="one", shape=(-1,), dtype="int64"),
            TensorInfo(name="raw", shape=(-1, 2), dtype="float32"),
        ),
        output=TensorInfo(name="score", shape=(-1,), dtype="float32", meaning="probability"),
        tables=tables,
        lookups=lookups,
        interaction=Interaction(
            kind="concat", top_inputs=("lookup:3", "dense:raw", "lookup:0", "lookup:1", "lookup:2")
        ),
        top=dense_layers(rng, arrays, "top", (24, 16, 1)),
        output_activation="sigmoid",
    )
    return model, arrays


def feeds_of(model, batch, *, seed=0):
    """Random inputs; some ids lie outside their tables on either side, some are padding."""
    rng = np.random.default_rng(seed)
    feeds = {}
    for info in model.inputs:
        shape = (batch, *info.shape[1:])
        feeds[info.name] = (
            rng.standard_normal(shape).astype(np.float32)
            if info.dtype == "float32"
            else rng.integers(-3, 45, shape).astype(np.int32)
        )
    for lookup in model.lookups:
        if lookup.padding_index is not None:
            ids = feeds[lookup.input][:, lookup.column : lookup.column + lookup.length]
            ids[rng.random(ids.shape) < 0.4] = lookup.padding_index
            ids[0] = lookup.padding_index
    return feeds


def request(tmp_path, model, arrays, spec, *, batches=(1,), samples=None):
    tmp_path.mkdir(exist_ok=True)
    save(model, arrays, tmp_path / "recommender")
    calibration = None
    if samples is not None:
        calibration = tmp_path / "calibration.npz"
        np.savez(calibration, **feeds_of(model, samples, seed=77))
    captured = Captured(
        name="net",
        framework="torch",
        kind="recommender",
        folder=tmp_path,
        inputs=model.inputs,
        outputs=(model.output,),
        batches=batches,
        recommender=tmp_path / "recommender",
    )
    folder = tmp_path / "out"
    folder.mkdir()
    return LowerRequest(captured=captured, spec=spec, folder=folder, calibration=calibration)


def run(path, signature, feeds, kernels="default"):
    interpreter = Interpreter(str(path), experimental_op_resolver_type=KERNELS[kernels])
    inputs = {}
    for info in signature.inputs:
        values = feeds[info.name]
        if info.scale:
            values = np.clip(np.rint(values / info.scale[0]) + info.zero_point[0], -128, 127)
        inputs[info.name] = values.astype(info.dtype)
    (values,) = interpreter.get_signature_runner(signature.name)(**inputs).values()
    out = signature.outputs[0]
    return (values.astype(np.float32) - out.zero_point[0]) * out.scale[0] if out.scale else values


def snr_db(wanted, got):
    noise = ((wanted.astype(np.float64) - got) ** 2).sum()
    return 10 * np.log10((wanted.astype(np.float64) ** 2).sum() / max(noise, 1e-30))


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("make", [dlrm, bags])
def test_a_float_file_computes_the_structure_exactly_at_every_batch_size(make, kernels, tmp_path):
    model, arrays = make()
    lowered = lower(request(tmp_path, model, arrays, spec_for_recipe("float32"), batches=(1, 64)))
    assert [signature.name for signature in lowered.signatures] == ["batch_1", "batch_64"]
    for signature, batch in zip(lowered.signatures, (1, 64), strict=True):
        feeds = feeds_of(model, batch)
        wanted = trace_reference(model, arrays, feeds, batch=batch)["output"]
        got = run(tmp_path / "out/model.tflite", signature, feeds, kernels)
        assert got.shape == (batch, *model.output.shape[1:])
        np.testing.assert_allclose(got.reshape(wanted.shape), wanted, atol=1e-5)


def interacting(count, pairs):
    """A DLRM of `count` vectors and these dot products."""
    rng = np.random.default_rng(4)
    arrays = {}
    model = Recommender(
        inputs=(TensorInfo(name="ids", shape=(-1, count), dtype="int64"),),
        output=TensorInfo(name="score", shape=(-1, 1), dtype="float32", meaning="logit"),
        tables=tables_of(rng, arrays, (9,) * count, (4,) * count),
        lookups=tuple(Lookup(table=place, input="ids", column=place) for place in range(count)),
        interaction=Interaction(kind="dot", top_inputs=("pairs",), vectors=tuple(range(count)), pairs=tuple(pairs)),
        top=dense_layers(rng, arrays, "top", (len(pairs), 8, 1)),
    )
    return model, arrays


@pytest.mark.parametrize("count", [2, 3, 8, 9])
@pytest.mark.parametrize("which", ["every pair", "with itself", "with the first"])
def test_dot_products_of_any_pairs_reach_their_weights(which, count, tmp_path):
    pairs = [(a, b) for a in range(count) for b in range(a + (which == "with itself"))]
    if which == "with the first":
        pairs = [pair for pair in pairs if 0 in pair]
    model, arrays = interacting(count, pairs)
    for batch in (1, 5):
        lowered = lower(request(tmp_path / str(batch), model, arrays, spec_for_recipe("float32"), batches=(batch,)))
        feeds = feeds_of(model, batch)
        wanted = trace_reference(model, arrays, feeds, batch=batch)["logit"]
        for kernels in KERNELS:
            got = run(tmp_path / str(batch) / "out/model.tflite", lowered.signatures[0], feeds, kernels)
            np.testing.assert_allclose(got.reshape(wanted.shape), wanted, atol=1e-5)


def test_between_the_look_up_and_the_output_of_a_dlrm_nothing_runs_outside_the_delegate(tmp_path):
    model, arrays = dlrm()
    lower(request(tmp_path, model, arrays, spec_for_recipe("int4")))
    facts = read_facts(tmp_path / "out/model.tflite")
    last = max(place for place, fact in enumerate(facts) if fact.op == "EMBEDDING_LOOKUP")
    assert {fact.runs_on for fact in facts[last + 1 :]} == {"XNNPACK"}


STORAGES = {
    "int8 rows": (spec_for_recipe("int8"), 38),
    "int8 tables": (spec_for_recipe("int8", table_scale="table"), 35),
    "int4 rows": (spec_for_recipe("int4"), 16),
    "int4 tables": (spec_for_recipe("int4", table_scale="table"), 12),
    "float16 rows": (spec_for_recipe("float16"), 55),
    "int8 rows, widened layers": (spec_for_recipe("int8-weight"), 38),
    "int4 rows, widened layers": (spec_for_recipe("int4-weight"), 12),
}


@pytest.mark.parametrize("make", [dlrm, bags])
@pytest.mark.parametrize("storage", STORAGES)
def test_quantized_files_stay_close_under_every_kernel(storage, make, tmp_path):
    model, arrays = make()
    model = replace(model, output_activation="none")
    spec, limit_db = STORAGES[storage]
    lowered = lower(request(tmp_path, model, arrays, spec, batches=(64, 1)))
    feeds = feeds_of(model, 64)
    wanted = trace_reference(model, arrays, feeds, batch=64)["output"]
    for kernels in KERNELS:
        got = run(tmp_path / "out/model.tflite", lowered.signatures[0], feeds, kernels).reshape(wanted.shape)
        assert snr_db(wanted, got) > limit_db, kernels


@pytest.mark.parametrize("storage", STORAGES)
def test_no_table_is_expanded_before_its_rows_are_read(storage, tmp_path):
    model, arrays = dlrm()
    lower(request(tmp_path, model, arrays, STORAGES[storage][0], batches=(2,)))
    rows = min(table.rows for table in model.tables)
    for fact in read_facts(tmp_path / "out/model.tflite"):
        assert fact.op not in ("GATHER", "DEQUANTIZE") or fact.weight_count < rows, fact
        if fact.op == "FULLY_CONNECTED" and "widened" in storage:
            assert fact.weight_compute == "float32"
        if fact.op == "EMBEDDING_LOOKUP" and not fact.layer.endswith("scales"):
            assert fact.weight_dtype == storage.split()[0]


def test_an_id_outside_its_table_reads_its_first_or_last_row_and_never_the_neighbour(tmp_path):
    model, arrays = dlrm()
    lowered = lower(request(tmp_path, model, arrays, spec_for_recipe("int4")))
    dense = np.ones((1, 5), np.float32)
    path, signature = tmp_path / "out/model.tflite", lowered.signatures[0]
    rows = [model.tables[lookup.table].rows for lookup in model.lookups]
    last = np.array([rows], np.int32) - 1
    for outside, inside in ((last + 1, last), (last + 10**9, last), (last * 0 - 1, last * 0)):
        got, wanted = (run(path, signature, {"dense": dense, "ids": ids}) for ids in (outside, inside))
        assert np.array_equal(got, wanted)


def test_every_table_is_named_with_what_it_became(tmp_path):
    model, arrays = dlrm()
    spec = spec_for_recipe("int4", rules=(LayerRule(pattern="table.1", weight_bits=8),))
    lowered = lower(request(tmp_path, model, arrays, spec))
    told = {outcome.layer: outcome for outcome in lowered.outcomes}
    assert told["table.0"].got == "int4, one float16 scale per row"
    assert told["table.0"].weight_bytes == ROWS[0] * 4 and told["table.0"].weight_bits == 4
    assert told["table.1"].got.startswith("int8")
    assert told["top.0"].got.startswith("int8 per-channel")
    assert lowered.minimum_runtime == "ai-edge-litert 1.4"
    assert any("tflite-runtime 2.14" in warning for warning in lowered.warnings)
    assert lowered.graph.macs >= sum(d.in_features * d.out_features for d in (*model.bottom, *model.top))


@pytest.mark.parametrize("make", [dlrm, bags])
def test_tables_stored_in_different_ways_meet_in_the_right_order(make, tmp_path):
    model, arrays = make()
    model = replace(model, output_activation="none")
    spec = spec_for_recipe(
        "float32", rules=(LayerRule(pattern="table.2", weight_bits=8), LayerRule(pattern="table.0", weight_bits=8))
    )
    lowered = lower(request(tmp_path, model, arrays, spec, batches=(64,)))
    told = {outcome.layer: outcome.got for outcome in lowered.outcomes}
    assert told["table.1"] == "float32" and told["table.2"].startswith("int8")
    feeds = feeds_of(model, 64)
    wanted = trace_reference(model, arrays, feeds, batch=64)["output"]
    assert snr_db(wanted, run(tmp_path / "out/model.tflite", lowered.signatures[0], feeds).reshape(wanted.shape)) > 35


def test_an_input_that_nothing_reads_stays_an_input(tmp_path):
    model, arrays = dlrm()
    model = replace(model, inputs=(*model.inputs, TensorInfo(name="session", shape=(-1, 2), dtype="int64")))
    lowered = lower(request(tmp_path, model, arrays, spec_for_recipe("float32")))
    assert [info.name for info in lowered.signatures[0].inputs] == ["dense", "ids", "session"]
    feeds = feeds_of(model, 1)
    wanted = trace_reference(model, arrays, feeds, batch=1)["output"]
    np.testing.assert_allclose(run(tmp_path / "out/model.tflite", lowered.signatures[0], feeds), wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("storage", "scales"), [("int8 rows", "per-row"), ("int8 tables", "per-tensor"), ("int4 rows", "blockwise")]
)
def test_a_reader_of_the_file_sees_how_many_scales_its_tables_have(storage, scales, tmp_path):
    model, arrays = dlrm()
    lowered = lower(request(tmp_path, model, arrays, STORAGES[storage][0]))
    facts = [fact for fact in read_facts(tmp_path / "out/model.tflite") if fact.op == "EMBEDDING_LOOKUP"]
    assert facts[0].granularity == scales
    assert lowered.outcomes[0].weight_bits == facts[0].weight_bits


def test_signatures_share_the_constants(tmp_path):
    model, arrays = dlrm()
    one, three = tmp_path / "one.tflite", tmp_path / "three.tflite"
    emit_hybrid(model, arrays, spec_for_recipe("int8"), one)
    emit_hybrid(model, arrays, spec_for_recipe("int8"), three, batches=(1, 2, 4))
    held = sum(len(b.data) for b in read_model(one).buffers if b.data is not None)
    assert sum(len(b.data) for b in read_model(three).buffers if b.data is not None) < 1.5 * held


def test_an_int4_row_takes_half_a_byte_a_value_and_two_for_its_scale(tmp_path):
    model, arrays = dlrm()
    emit_hybrid(model, arrays, spec_for_recipe("int4"), tmp_path / "m.tflite")
    read = read_model(tmp_path / "m.tflite")
    sizes = {t.name.decode(): len(read.buffers[t.buffer].data) for t in read.subgraphs[0].tensors if t.buffer}
    rows = sum(ROWS)
    assert sizes["tables.8.int4-row"] == rows * 4 and sizes["tables.8.int4-row.row_scales"] == rows * 2


@pytest.mark.parametrize("storage", STORAGES)
def test_rows_of_zeros_tiny_and_large_values_are_kept_within_half_a_step(storage, tmp_path):
    model, arrays = dlrm()
    table = arrays["table.2"]
    table[0] = 0
    table[1] *= 1e-7
    table[2] *= 1e-12
    table[3] = 1e-30
    if "rows" in storage:
        table[4] *= (6e4 if storage == "float16 rows" else 1e5) / np.abs(table[4]).max()
    path = tmp_path / "m.tflite"
    emit_hybrid(model, arrays, STORAGES[storage][0], path)
    assert all(error.steps <= 0.502 for error in check_tables(path, model, arrays))
    read = Interpreter(str(path))
    ids = np.array([[0, 0, 0, 0], [0, 1, 0, 0], [0, 3, 0, 0], [0, 4, 0, 0]], np.int32)
    for row in ids:
        feeds = {"dense": np.ones((1, 5), np.float32), "ids": row[None]}
        assert np.isfinite(next(iter(read.get_signature_runner("serving_default")(**feeds).values()))).all()


def test_a_row_beyond_float16_scales_is_refused_by_its_table_or_falls_back(tmp_path):
    model, arrays = dlrm()
    arrays["table.2"][5, 0] = 1e6
    with pytest.raises(Unsupported, match=r"table\.2.*float16.*--table-scale table"):
        emit_hybrid(model, arrays, spec_for_recipe("int4"), tmp_path / "m.tflite")
    emit_hybrid(model, arrays, spec_for_recipe("int4", fallback_bits=8), tmp_path / "m.tflite")
    storages = {error.table: error.storage for error in check_tables(tmp_path / "m.tflite", model, arrays)}
    assert storages["table.2"] == "int8-row" and storages["table.0"] == "int4-row"


def test_tables_and_weights_that_are_not_finite_are_named(tmp_path):
    model, arrays = dlrm()
    arrays["table.1"][3, 2] = np.nan
    arrays["table.2"][0, 0] = np.inf
    with pytest.raises(BadInput) as caught:
        emit_hybrid(model, arrays, spec_for_recipe("int8"), tmp_path / "m.tflite")
    assert "table table.1" in str(caught.value) and "table table.2" in str(caught.value)
    model, arrays = dlrm()
    arrays["top.0.weight"][0, 0] = np.nan
    with pytest.raises(BadInput, match=r"layer top\.0"):
        emit_hybrid(model, arrays, spec_for_recipe("int8"), tmp_path / "m.tflite")
    assert not (tmp_path / "m.tflite").exists()


@pytest.mark.parametrize("storage", STORAGES)
def test_a_damaged_table_is_found_by_reading_it_back(storage, tmp_path):
    model, arrays = dlrm()
    path = tmp_path / "m.tflite"
    emit_hybrid(model, arrays, STORAGES[storage][0], path)
    check_tables(path, model, arrays)
    changed = {**arrays, "table.2": arrays["table.2"].copy()}
    changed["table.2"][250] += 3 * np.abs(arrays["table.2"]).max()
    with pytest.raises(VerificationFailed, match=r"table table\.2"):
        check_tables(path, model, changed)


def test_int4_layers_with_an_odd_number_of_inputs_are_refused_or_fall_back(tmp_path):
    model, arrays = dlrm()
    spec = spec_for_recipe("int4", mlp_bits=4)
    with pytest.raises(Unsupported, match=r"bottom\.0 .*even"):
        emit_hybrid(model, arrays, spec, tmp_path / "m.tflite")
    lowered = lower(request(tmp_path, model, arrays, replace(spec, fallback_bits=8)))
    told = {outcome.layer: outcome for outcome in lowered.outcomes}
    assert told["bottom.0"].got.startswith("int8") and "even" in told["bottom.0"].reason
    assert told["bottom.1"].got.startswith("int4") and told["bottom.1"].weight_bits == 4
    feeds = feeds_of(model, 1)
    wanted = trace_reference(model, arrays, feeds, batch=1)["output"]
    for kernels in KERNELS:
        assert np.abs(run(tmp_path / "out/model.tflite", lowered.signatures[0], feeds, kernels) - wanted).max() < 0.1


def test_the_order_of_dot_products_never_makes_an_even_layer_odd(tmp_path):
    model, arrays = interacting(7, [(a, b) for a in range(7) for b in range(a)])  # 21 products, 24 in a band
    raw = TensorInfo(name="raw", shape=(-1, 3), dtype="float32")
    rng = np.random.default_rng(5)
    model = replace(
        model,
        inputs=(*model.inputs, raw),
        interaction=replace(model.interaction, top_inputs=("pairs", "dense:raw")),
        top=dense_layers(rng, arrays, "top", (24, 8, 1)),
    )
    lowered = lower(request(tmp_path, model, arrays, spec_for_recipe("int4", mlp_bits=4)))
    told = {outcome.layer: outcome for outcome in lowered.outcomes}
    assert told["top.0"].got.startswith("int4") and told["top.0"].weight_bits == 4
    feeds = feeds_of(model, 1)
    wanted = trace_reference(model, arrays, feeds, batch=1)["logit"]
    got = run(tmp_path / "out/model.tflite", lowered.signatures[0], feeds)
    assert np.abs(got - wanted).max() < 0.2 * np.abs(wanted).max() + 0.1


def test_constants_behind_the_root_are_read_like_inline_ones(tmp_path):
    model, arrays = dlrm()
    inline, outside = tmp_path / "inline.tflite", tmp_path / "outside.tflite"
    emit_hybrid(model, arrays, spec_for_recipe("int4"), inline)
    written = Emitter.write
    Emitter.write = lambda self, path, staging=None: write_streamed(
        self.model, self._streams, path, inline_limit=0, staging=staging
    )
    try:
        emit_hybrid(model, arrays, spec_for_recipe("int4"), outside)
    finally:
        Emitter.write = written
    check_tables(outside, model, arrays)
    feeds = {name: values[:1] for name, values in feeds_of(model, 1).items()}
    runs = [Interpreter(str(path)).get_signature_runner("serving_default")(**feeds) for path in (inline, outside)]
    assert np.array_equal(runs[0]["score"], runs[1]["score"])


@pytest.mark.parametrize("io", ["float", "int8"])
@pytest.mark.parametrize("make", [dlrm, lambda: bags(padding=False)], ids=["dlrm", "bags"])
def test_a_full_integer_file_ends_at_the_logit_and_runs_alike_under_every_kernel(make, io, tmp_path):
    model, arrays = make()
    spec = spec_for_recipe("int8", for_device="mcu", io=io)
    lowered = lower(request(tmp_path, model, arrays, spec, batches=(1, 64), samples=3000))
    assert lowered.signatures[0].outputs[0].meaning == "logit"
    assert any("logit" in warning for warning in lowered.warnings)
    read = read_model(tmp_path / "out/model.tflite")
    for graph in read.subgraphs:
        kinds = {op_name(read, operator) for operator in graph.operators}
        assert not kinds & {"EMBEDDING_LOOKUP", "LOGISTIC", "SUM"}
        assert all(len(o.inputs) <= 10 for o in graph.operators if op_name(read, o) == "CONCATENATION")
    if io == "int8":
        assert not kinds & {"DEQUANTIZE"} and lowered.signatures[0].outputs[0].dtype == "int8"
    for signature, batch in zip(lowered.signatures, (1, 64), strict=True):
        feeds = feeds_of(model, batch)
        wanted = trace_reference(model, arrays, feeds, batch=batch)["logit"]
        for kernels in KERNELS:
            got = run(tmp_path / "out/model.tflite", signature, feeds, kernels).reshape(wanted.shape)
            spread = np.abs(trace_reference(model, arrays, feeds_of(model, 64), batch=64)["logit"]).max()
            assert np.abs(got - wanted).max() < 0.12 * spread, kernels


def test_many_tables_are_concatenated_ten_at_a_time(tmp_path):
    rng = np.random.default_rng(3)
    arrays = {}
    tables = tables_of(rng, arrays, (9,) * 26, (4,) * 26)
    pairs = tuple((a, b) for a in range(26) for b in range(a))
    model = Recommender(
        inputs=(TensorInfo(name="ids", shape=(-1, 26), dtype="int64"),),
        output=TensorInfo(name="score", shape=(-1, 1), dtype="float32", meaning="logit"),
        tables=tables,
        lookups=tuple(Lookup(table=place, input="ids", column=place) for place in range(26)),
        interaction=Interaction(kind="dot", top_inputs=("pairs",), vectors=tuple(range(26)), pairs=pairs),
        top=dense_layers(rng, arrays, "top", (325, 16, 1)),
    )
    spec = spec_for_recipe("int8", for_device="mcu")
    lowered = lower(request(tmp_path, model, arrays, spec, samples=100))
    read = read_model(tmp_path / "out/model.tflite")
    joins = [o for o in read.subgraphs[0].operators if op_name(read, o) == "CONCATENATION"]
    assert len(joins) == 4 and max(len(o.inputs) for o in joins) == 10
    got, wanted = [], []
    for seed in range(20):
        feeds = feeds_of(model, 1, seed=seed)
        got.append(run(tmp_path / "out/model.tflite", lowered.signatures[0], feeds, "reference").item())
        wanted.append(trace_reference(model, arrays, feeds, batch=1)["logit"].item())
    assert snr_db(np.array(wanted), np.array(got)) > 15


@pytest.mark.parametrize("device", ["phone", "mcu"])
def test_a_bottom_output_that_no_product_reads_keeps_its_own_range(device, tmp_path):
    model, arrays = dlrm(sigmoid=False)
    arrays["bottom.1.bias"] += 20
    pairs = tuple((a, b) for a in range(4) for b in range(a))
    interaction = Interaction(
        kind="dot", top_inputs=("pairs", "lookup:2", "bottom", "dense:dense"), vectors=(0, 1, 2, 3), pairs=pairs
    )
    top = dense_layers(np.random.default_rng(4), arrays, "top", (6 + 8 + 8 + 5, 16, 1))
    model = replace(model, interaction=interaction, top=top)
    spec = spec_for_recipe("int8", for_device=device)
    lowered = lower(request(tmp_path, model, arrays, spec, batches=(64,), samples=3000))
    feeds = feeds_of(model, 64)
    wanted = trace_reference(model, arrays, feeds, batch=64)["logit"]
    for kernels in KERNELS:
        got = run(tmp_path / "out/model.tflite", lowered.signatures[0], feeds, kernels)
        assert snr_db(wanted, got.reshape(wanted.shape)) > 30, kernels


def test_microcontrollers_refuse_by_name_what_they_cannot_run(tmp_path):
    model, arrays = dlrm()
    spec = spec_for_recipe("int4", for_device="mcu")
    with pytest.raises(Unsupported, match=r"table\.0 \(GATHER\).*--fallback int8"):
        lower(request(tmp_path, model, arrays, spec, samples=10))
    with pytest.raises(BadInput, match="--calibrate"):
        lower(request(tmp_path / "a", model, arrays, spec_for_recipe("int8", for_device="mcu")))
    with pytest.raises(Unsupported, match=r"table\.2 .*padding"):
        lower(request(tmp_path / "b", *bags(), spec_for_recipe("int8", for_device="mcu"), samples=10))
    with pytest.raises(Unsupported, match="--io int8"):
        lower(request(tmp_path / "c", model, arrays, spec_for_recipe("int8", io="int8")))


def test_a_padded_sum_on_a_microcontroller_leaves_its_padding_out(tmp_path):
    model, arrays = bags()
    first, second, third, fourth = model.lookups
    model = replace(model, lookups=(first, second, replace(third, padding_index=None), fourth))
    spec = spec_for_recipe("float32", for_device="mcu")
    lowered = lower(request(tmp_path, model, arrays, spec))
    feeds = feeds_of(model, 1)
    wanted = trace_reference(model, arrays, feeds, batch=1)["logit"]
    got = run(tmp_path / "out/model.tflite", lowered.signatures[0], feeds)
    np.testing.assert_allclose(got.reshape(wanted.shape), wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("precision", "table", "dense"),
    [
        ("float16", "float16, widened behind the look-up", "float16 stored, float32 compute"),
        ("int8-weight", "int8, one float32 scale per row", "int8 per-channel stored, float32 compute"),
        ("int4-weight", "int4, one float16 scale per row", "int4 per-channel stored, float32 compute"),
        ("int8-dynamic", "int8, one float32 scale per row", "int8 per-channel, dynamic int8 activations"),
    ],
)
def test_outcomes_say_what_is_widened_and_where(precision, table, dense, tmp_path):
    model, arrays = dlrm()
    outcomes = lower(request(tmp_path, model, arrays, spec_for_recipe(precision))).outcomes
    assert {outcome.got for outcome in outcomes if outcome.op == "EMBEDDING_LOOKUP"} == {table}
    assert {outcome.got for outcome in outcomes if outcome.op == "FULLY_CONNECTED"} == {dense}
    assert all(outcome.is_as_asked for outcome in outcomes)


def test_values_beyond_float16_are_refused_by_name_or_stay_in_float_on_wish(tmp_path):
    model, arrays = dlrm()
    weight, matrix = model.tables[1].weight, model.top[0].weight
    arrays = {**arrays, weight: arrays[weight] * 1e9, matrix: arrays[matrix] * 1e9}
    with pytest.raises(Unsupported) as caught:
        lower(request(tmp_path, model, arrays, spec_for_recipe("float16")))
    assert model.tables[1].name in {refusal.layer for refusal in caught.value.refusals}
    spec = spec_for_recipe("float16", fallback_bits=32)
    outcomes = {o.layer: o.got for o in lower(request(tmp_path / "again", model, arrays, spec)).outcomes}
    assert outcomes[model.tables[1].name] == outcomes[model.top[0].name] == "float32"
    assert outcomes[model.tables[0].name].startswith("float16")


@pytest.mark.parametrize("precision", ["float16", "int8-dynamic", "int8-weight", "int4-weight", "int16x8"])
def test_microcontrollers_refuse_what_has_no_int8_activations(precision, tmp_path):
    model, arrays = dlrm()
    with pytest.raises(Unsupported, match="INT8 activations"):
        lower(request(tmp_path, model, arrays, spec_for_recipe(precision, for_device="mcu")))


def test_int16_activations_are_refused_by_name_beside_tables(tmp_path):
    model, arrays = dlrm()
    with pytest.raises(Unsupported, match="INT16 activations are for networks without"):
        lower(request(tmp_path, model, arrays, spec_for_recipe("int16x8")))
