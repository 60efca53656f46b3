"""The module built for ExecuTorch computes what the structure says, however inputs lie and look-ups are grouped."""

import numpy as np
import pytest

pytest.importorskip("executorch")
torch = pytest.importorskip("torch")

from converters.executorch.recommender_module import build_module, group_lookups, put_tables  # noqa: E402
from converters.executorch.recommender_tables import stack_tables  # noqa: E402
from converters.recommender.model import Dense, Interaction, Lookup, Recommender, Table  # noqa: E402
from converters.recommender.reference import run_reference  # noqa: E402
from edge_deploy.core.tensor import TensorInfo  # noqa: E402

BATCH = 7


def random_model(seed):
    """A structure drawn at random: widths, layouts of ids, poolings, interaction, order of the top's inputs."""
    draw = np.random.default_rng(seed)
    arrays, inputs, lookups, tables, dense = {}, [], [], [], {}

    def layer(name, into, out, activation):
        arrays[f"{name}.w"] = draw.normal(0, into**-0.5, (out, into)).astype(np.float32)
        arrays[f"{name}.b"] = draw.normal(size=out).astype(np.float32)
        dense[name] = Dense(
            name=name,
            weight=f"{name}.w",
            bias=f"{name}.b",
            in_features=into,
            out_features=out,
            activation=activation,
        )
        return dense[name]

    dot = bool(draw.integers(2))
    dims = [6] if dot else [3, 6, 6]
    for index in range(int(draw.integers(1, 5))):
        rows, dim = int(draw.integers(1, 30)), int(draw.choice(dims))
        arrays[f"t{index}"] = draw.normal(size=(rows, dim)).astype(np.float32)
        tables.append(Table(name=f"t{index}", rows=rows, dim=dim, weight=f"t{index}"))
    flipped = bool(draw.integers(2))
    columns = 0
    for _ in range(int(draw.integers(2, 6))):
        length = int(draw.choice([1, 1, 3]))
        pooling = str(draw.choice(["sum", "mean"])) if length > 1 else "none"
        lookups.append(
            Lookup(
                table=int(draw.integers(len(tables))),
                input="ids",
                column=columns,
                length=length,
                columns_first=flipped,
                pooling=pooling,
                padding_index=int(draw.choice([0, 1])) if length > 1 and draw.integers(2) else None,
            )
        )
        columns += length
    inputs.append(TensorInfo(name="ids", shape=(columns, BATCH) if flipped else (BATCH, columns), dtype="int32"))
    bags = TensorInfo(name="bag", shape=(BATCH, 2), dtype="int64")
    weights = TensorInfo(name="bag_weights", shape=(BATCH, 2), dtype="float32")
    lookups.append(Lookup(table=0, input="bag", length=2, pooling="sum", weights_input="bag_weights"))
    single = TensorInfo(name="single", shape=(BATCH,), dtype="int64")
    lookups.append(Lookup(table=0, input="single"))
    inputs += [bags, TensorInfo(name="numbers", shape=(BATCH, 5), dtype="float32"), weights, single]
    bottom = (layer("b0", 5, 6, "relu"),)
    order = draw.permutation(len(lookups)).tolist()
    if dot:
        vectors = (-1, *order)
        pairs = tuple((int(a), int(b)) for a, b in draw.integers(0, len(vectors), (8, 2)))
        parts, width = ["pairs", "bottom", "dense:numbers"], 8 + 6 + 5
    else:
        vectors, pairs = (), ()
        parts = ["bottom", *(f"lookup:{k}" for k in order)]
        width = 6 + sum(tables[lookups[k].table].dim for k in order)
    model = Recommender(
        inputs=tuple(inputs),
        output=TensorInfo(name="out", shape=(BATCH,), dtype="float32"),
        tables=tuple(tables),
        lookups=tuple(lookups),
        interaction=Interaction(kind="dot" if dot else "concat", vectors=vectors, pairs=pairs, top_inputs=tuple(parts)),
        bottom=bottom,
        top=(layer("t0", width, 4, "tanh"), layer("t1", 4, 1, "none")),
        dense_input="numbers",
    )
    return model, arrays, draw


def module_of(model, arrays, bits, scale="row"):
    groups = group_lookups(model, bits)
    stacked = [
        stack_tables([arrays[model.tables[k].weight] for k in group.tables], bits=group.bits, scale=scale)
        for group in groups
    ]
    module = build_module(model, arrays, groups, stacked, bits)
    put_tables(module, stacked)
    return module


def feeds_of(model, draw):
    """Ids reach beyond both ends of their tables."""
    return {
        info.name: draw.normal(size=info.shape).astype(np.float32)
        if info.dtype == "float32"
        else draw.integers(-3, 40, info.shape).astype(info.dtype)
        for info in model.inputs
    }


def run(module, model, feeds):
    with torch.no_grad():
        return module(*(torch.from_numpy(feeds[info.name]) for info in model.inputs)).numpy()


def same_bits(model, bits):
    names = [layer.name for layer in (*model.tables, *model.bottom, *model.top)]
    return dict.fromkeys(names, bits)


@pytest.mark.parametrize("seed", range(40))
def test_any_structure_computes_its_reference(seed):
    model, arrays, draw = random_model(seed)
    feeds = feeds_of(model, draw)
    want = run_reference(model, arrays, feeds, batch=BATCH)
    got = run(module_of(model, arrays, same_bits(model, 32)), model, feeds)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("scale", ["row", "table"])
@pytest.mark.parametrize("seed", range(8))
def test_mixed_widths_of_tables_stay_near_the_reference(seed, scale):
    model, arrays, draw = random_model(seed)
    feeds = feeds_of(model, draw)
    bits = {**same_bits(model, 4), **{table.name: (8, 4, 32)[k % 3] for k, table in enumerate(model.tables)}}
    want = run_reference(model, arrays, feeds, batch=BATCH)
    got = run(module_of(model, arrays, bits, scale), model, feeds)
    assert np.corrcoef(np.r_[want, -want], np.r_[got, -got])[0, 1] > 0.9
