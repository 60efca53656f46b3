"""Recommenders written in many ways are recognised and computed rightly; others are left alone."""

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from converters.passes.embedding_bag import rewrite_program  # noqa: E402
from converters.recommender.model import load, save  # noqa: E402
from converters.recommender.recognise import random_feeds, recognise  # noqa: E402
from converters.recommender.reference import run_reference  # noqa: E402
from edge_deploy.core.tensor import TensorInfo  # noqa: E402

ROWS = (10, 20, 30)


def mlp(*widths, last=nn.ReLU):
    layers = []
    for i, (a, b) in enumerate(itertools.pairwise(widths)):
        layers += [nn.Linear(a, b), nn.ReLU() if i < len(widths) - 2 else last()]
    return nn.Sequential(*layers)


class Base(nn.Module):
    """Three tables of width 4, a bottom MLP on 5 numbers; subclasses interact."""

    top_in = 4 + 6

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.tables = nn.ModuleList(nn.Embedding(rows, 4) for rows in ROWS)
        self.lower = mlp(5, 8, 4)
        self.upper = mlp(self.top_in, 16, 1, last=nn.Sigmoid)

    def vectors(self, dense, ids):
        return [self.lower(dense)] + [table(ids[:, i]) for i, table in enumerate(self.tables)]


class Facebook(Base):
    def forward(self, dense, ids):
        parts = self.vectors(dense, ids)
        t = torch.cat(parts, dim=1).view((dense.shape[0], -1, 4))
        z = torch.bmm(t, torch.transpose(t, 1, 2))
        li = torch.tensor([i for i in range(4) for j in range(i)])
        lj = torch.tensor([j for i in range(4) for j in range(i)])
        return self.upper(torch.cat([parts[0], z[:, li, lj]], dim=1))


class EinsumUpper(Base):
    def forward(self, dense, ids):
        t = torch.stack(self.vectors(dense, ids), dim=1)
        z = torch.einsum("bid,bjd->bij", t, t)
        i, j = torch.triu_indices(4, 4, offset=1)
        return self.upper(torch.cat([z[:, i, j], t[:, 0]], dim=1)).squeeze(-1)


class SelfInteraction(Base):
    top_in = 4 + 10

    def forward(self, dense, ids):
        t = torch.stack(self.vectors(dense, ids), dim=1)
        z = (t @ t.transpose(1, 2)).flatten(1)
        where = torch.tril(torch.ones(4, 4)).flatten().nonzero().flatten()
        return self.upper(torch.cat([t[:, 0], torch.index_select(z, 1, where)], dim=1)).flatten()


class WholeMatrix(Base):
    top_in = 16

    def forward(self, dense, ids):
        t = torch.stack(self.vectors(dense, ids), dim=2)
        return self.upper(torch.matmul(t.transpose(1, 2), t).reshape(dense.shape[0], -1))


class MaskedTriangle(Base):
    top_in = 4 + 16

    def forward(self, dense, ids):
        t = torch.stack(self.vectors(dense, ids), dim=1)
        z = torch.tril(torch.bmm(t, t.mT), diagonal=-1)
        return self.upper(torch.cat([t[:, 0], z.flatten(1)], dim=1))


class Concatenation(Base):
    top_in = 16

    def forward(self, dense, ids):
        return self.upper(torch.cat(self.vectors(dense, ids), dim=1))


class RawDense(Base):
    top_in = 17

    def forward(self, dense, ids):
        unbound = torch.unbind(ids, dim=1)
        parts = [table(column) for table, column in zip(self.tables, unbound, strict=True)]
        return self.upper(torch.cat([*parts, (dense - 0.5) / 2.0], dim=1))


class InterleavedColumns(Base):
    top_in = 16

    def forward(self, dense, ids):
        return self.upper(torch.stack(self.vectors(dense, ids), dim=2).flatten(1))


class Normalised(Base):
    """Batch normalisation before, between and after, in evaluation mode; dropout."""

    def __init__(self):
        super().__init__()
        self.before, self.within = nn.BatchNorm1d(5), nn.BatchNorm1d(4)
        self.lower = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Dropout(0.2))
        for norm in (self.before, self.within, self.lower[1]):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)

    top_in = 16

    def forward(self, dense, ids):
        parts = self.vectors(self.before(dense), ids)
        return self.upper(torch.cat([self.within(parts[1]), parts[0], *parts[2:]], dim=1))


class Functional(nn.Module):
    """Raw parameters, matrix products, one table for all fields with offsets, no bias anywhere."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.table = nn.Parameter(torch.randn(60, 4))
        self.w1, self.w2 = nn.Parameter(torch.randn(5, 4)), nn.Parameter(torch.randn(10, 1))
        self.register_buffer("starts", torch.tensor([0, 10, 30]))

    def forward(self, dense, ids):
        h = torch.relu(dense @ self.w1)
        e = self.table[ids + self.starts]
        t = torch.cat([e, h[:, None, :]], dim=1)
        z = t @ t.permute(0, 2, 1)
        pairs = [z[:, i, j] for i in range(4) for j in range(i + 1, 4)]
        return torch.cat([h, torch.stack(pairs, dim=1)], dim=1) @ self.w2


class SharedTable(Base):
    def __init__(self):
        super().__init__()
        self.tables = nn.ModuleList([self.tables[0], self.tables[0], self.tables[1]])

    forward = Facebook.forward


class Widths(nn.Module):
    """Tables of different widths, concatenated; no sigmoid, two outputs."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(7)
        self.tables = nn.ModuleList(nn.Embedding(rows, dim) for rows, dim in zip(ROWS, (3, 4, 7), strict=True))
        self.upper = nn.Sequential(nn.Linear(14 + 5, 8), nn.ReLU(), nn.Linear(8, 2))

    def forward(self, dense, ids):
        columns = ids.split(1, dim=1)
        parts = [t(c.squeeze(1)) for t, c in zip(self.tables, columns, strict=True)]
        return self.upper(torch.cat([dense, *parts], dim=1))


class Bags(nn.Module):
    """Multi-hot fields as bags: a sum, a mean with padding, both from columns of one input."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(9)
        self.first = nn.EmbeddingBag(20, 4, mode="sum")
        self.second = nn.EmbeddingBag(30, 4, mode="mean", padding_idx=2)
        self.third = nn.EmbeddingBag(10, 4, mode="mean")
        self.upper = mlp(12, 8, 1, last=nn.Sigmoid)

    def forward(self, ids):
        return self.upper(torch.cat([self.first(ids[:, :3]), self.second(ids[:, 3:7]), self.third(ids[:, 7:])], 1))


class MaskedMean(nn.Module):
    """A mean over ids that are not 0, written by hand, beside a one-hot field as a vector of ids."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(9)
        self.items, self.user = nn.Embedding(30, 4, padding_idx=0), nn.Embedding(20, 4)
        self.upper = mlp(8, 8, 1, last=nn.Sigmoid)

    def forward(self, history, user):
        mask = (history != 0).float().unsqueeze(-1)
        e = (self.items(history) * mask).sum(1) / mask.sum(1).clamp(min=1)
        return self.upper(torch.cat([e, self.user(user)], dim=-1))


class AboveZero(MaskedMean):
    def forward(self, history, user):
        e = torch.where((history > 0).unsqueeze(-1), self.items(history), 0.0).sum(1)
        return self.upper(torch.cat([e, self.user(user)], dim=-1))


class UncheckedMean(MaskedMean):
    """A bag without ids is 0 / 0 here."""

    def forward(self, history, user):
        mask = (history != 0).float().unsqueeze(-1)
        e = (self.items(history) * mask).sum(1) / mask.sum(1)
        return self.upper(torch.cat([e, self.user(user)], dim=-1))


class TwoOutputs(Facebook):
    def forward(self, dense, ids):
        score = super().forward(dense, ids)
        return score, 1 - score


class Weighted(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(9)
        self.bag, self.user = nn.EmbeddingBag(30, 4, mode="sum"), nn.Embedding(20, 4)
        self.upper = mlp(8, 8, 1, last=nn.Sigmoid)

    def forward(self, items, weights, user):
        return self.upper(torch.cat([self.bag(items, per_sample_weights=weights), self.user(user.squeeze(1))], -1))


class ColumnsFirst(Base):
    def forward(self, dense, ids):
        parts = [self.lower(dense)] + [table(ids[i]) for i, table in enumerate(self.tables)]
        t = torch.stack(parts, 1)
        z = t @ t.mT
        i, j = torch.tril_indices(4, 4, offset=-1)
        return self.upper(torch.cat([parts[0], z[:, i, j]], dim=1))


class Factorisation(nn.Module):
    """Dot product of two vectors and biases from tables of width one."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.u, self.v = nn.Embedding(10, 6), nn.Embedding(20, 6)
        self.a, self.b = nn.Embedding(10, 1), nn.Embedding(20, 1)

    def forward(self, users, items):
        score = (self.u(users) * self.v(items)).sum(-1)
        return torch.sigmoid(score + self.a(users).squeeze(-1) + self.b(items).squeeze(-1) + 0.25)


class ElementProduct(nn.Module):
    """NCF's GMF: the product itself enters a layer, not its sum."""

    def __init__(self):
        super().__init__()
        self.u, self.v, self.out = nn.Embedding(10, 6), nn.Embedding(20, 6), nn.Linear(6, 1)

    def forward(self, users, items):
        return torch.sigmoid(self.out(self.u(users) * self.v(items)))


class WideAndDeep(Base):
    """Two branches that meet at the output: not ours."""

    def __init__(self):
        super().__init__()
        self.wide = nn.Linear(5, 1)

    top_in = 16

    def forward(self, dense, ids):
        return torch.sigmoid(self.upper[:-1](torch.cat(self.vectors(dense, ids), 1)) + self.wide(dense))


class Attention(Base):
    top_in = 16

    def forward(self, dense, ids):
        t = torch.stack(self.vectors(dense, ids), 1)
        return self.upper((F.softmax(t @ t.mT, -1) @ t).flatten(1))


class NegativePadding(MaskedMean):
    """Ids below zero are padding: a mask by order, which random ids in range never show."""

    def forward(self, history, user):
        mask = (history >= 0).float().unsqueeze(-1)
        e = (self.items(history.clamp(min=0)) * mask).sum(1)
        return self.upper(torch.cat([e, self.user(user)], dim=-1))


class WrappedIds(Base):
    """Negative ids count from the table's end, as Keras exports its gathers; ids are clamped as well."""

    top_in = 16

    def forward(self, dense, ids):
        found = []
        for i, table in enumerate(self.tables):
            column = ids[:, i].clamp(-ROWS[i], ROWS[i] - 1)
            found.append(table(torch.where(column < 0, column + ROWS[i], column)))
        return self.upper(torch.cat([self.lower(dense), *found], dim=1))


class Convolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 2, 3), nn.Linear(8, 2)

    def forward(self, x):
        return self.fc(self.conv(x).flatten(1))


def ids_of(batch, columns=3):
    return torch.zeros(batch, columns, dtype=torch.int64)


def exported(model, inputs, *, dynamic):
    """The program, and the inputs' descriptions; inputs are (name, tensor, batch axis)."""
    batch = torch.export.Dim("batch", min=2, max=64)
    shapes = tuple({axis: batch} for _, _, axis in inputs) if dynamic else None
    program = torch.export.export(model.eval(), tuple(t for _, t, _ in inputs), dynamic_shapes=shapes)
    infos = []
    for name, tensor, axis in inputs:
        shape = list(tensor.shape)
        if dynamic:
            shape[axis] = -1
        infos.append(TensorInfo(name=name, shape=tuple(shape), dtype=str(tensor.dtype).removeprefix("torch.")))
    return rewrite_program(program), tuple(infos)


def standard(batch):
    return [("dense", torch.randn(batch, 5), 0), ("ids", ids_of(batch), 0)]


def two_users(batch):
    return [("users", torch.zeros(batch, dtype=torch.int64), 0), ("items", torch.zeros(batch, dtype=torch.int64), 0)]


OURS = {
    "facebook": (Facebook, standard),
    "einsum": (EinsumUpper, standard),
    "self": (SelfInteraction, standard),
    "whole": (WholeMatrix, standard),
    "masked": (MaskedTriangle, standard),
    "concatenation": (Concatenation, standard),
    "raw dense": (RawDense, standard),
    "interleaved": (InterleavedColumns, standard),
    "normalised": (Normalised, standard),
    "functional": (Functional, standard),
    "shared": (SharedTable, standard),
    "widths": (Widths, standard),
    "bags": (Bags, lambda n: [("ids", ids_of(n, 9), 0)]),
    "masked mean": (MaskedMean, lambda n: [("history", ids_of(n, 5), 0), ("user", ids_of(n)[:, 0], 0)]),
    "above zero": (AboveZero, lambda n: [("history", ids_of(n, 5), 0), ("user", ids_of(n)[:, 0], 0)]),
    "weighted": (
        Weighted,
        lambda n: [("items", ids_of(n, 5), 0), ("weights", torch.rand(n, 5), 0), ("user", ids_of(n, 1), 0)],
    ),
    "columns first": (ColumnsFirst, lambda n: [("dense", torch.randn(n, 5), 0), ("ids", ids_of(3, n), 1)]),
    "factorisation": (Factorisation, two_users),
    "wrapped ids": (WrappedIds, standard),
}


STATIC = ("facebook", "whole", "normalised", "bags", "masked mean", "columns first")


@pytest.mark.parametrize(
    ("name", "dynamic"),
    [(name, True) for name in OURS] + [(name, False) for name in STATIC],
    ids=[f"{name}, dynamic" for name in OURS] + [f"{name}, static" for name in STATIC],
)
def test_a_recommender_is_recognised_however_it_is_written(name, dynamic):
    kind, inputs = OURS[name]
    batch = 4 if dynamic else 1
    model = kind()
    program, infos = exported(model, inputs(batch), dynamic=dynamic)
    found = recognise(program, infos)
    assert found is not None
    recommender, arrays = found
    assert [info.name for info in recommender.inputs] == [info.name for info in infos]
    shapes = [tuple(batch if size == -1 else size for size in info.shape) for info in infos]
    feeds = random_feeds(recommender, shapes, seed=11)
    with torch.no_grad():
        wanted = model(*(torch.from_numpy(feeds[info.name]) for info in infos)).numpy()
    got = run_reference(recommender, arrays, feeds, batch=batch)
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_a_mean_that_fails_on_empty_bags_is_recognised_and_gives_zeros_for_them():
    inputs = [("history", ids_of(4, 5), 0), ("user", ids_of(4)[:, 0], 0)]
    model, arrays = recognise(*exported(UncheckedMean(), inputs, dynamic=True))
    assert model.lookups[0].pooling == "mean" and model.lookups[0].padding_index == 0
    nothing = {"history": np.zeros((4, 5), np.int64), "user": np.zeros(4, np.int64)}
    assert np.isfinite(run_reference(model, arrays, nothing, batch=4)).all()


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [
        (ElementProduct, two_users),
        (WideAndDeep, standard),
        (Attention, standard),
        (TwoOutputs, standard),
        (NegativePadding, lambda n: [("history", ids_of(n, 5), 0), ("user", ids_of(n)[:, 0], 0)]),
    ],
    ids=["product", "wide and deep", "attention", "two outputs", "negative padding"],
)
def test_a_recommender_of_another_structure_is_left_to_the_generic_route(kind, inputs):
    assert recognise(*exported(kind(), inputs(2), dynamic=False)) is None


def test_networks_without_tables_are_no_recommenders():
    image = [("x", torch.randn(1, 1, 4, 4), 0)]
    assert recognise(*exported(Convolution(), image, dynamic=False)) is None
    assert recognise(*exported(mlp(5, 4, 1), [("x", torch.randn(1, 5), 0)], dynamic=False)) is None


class Lists(Base):
    """Ids as a list of vectors, one a field, as the authors' code passes them."""

    top_in = 16

    def forward(self, dense, fields):
        return self.upper(torch.cat([self.lower(dense), *(t(f) for t, f in zip(self.tables, fields, strict=True))], 1))


def test_ids_in_a_list_of_inputs_are_inputs_of_their_own():
    fields = [torch.zeros(4, dtype=torch.int64) for _ in ROWS]
    program = torch.export.export(Lists().eval(), (torch.randn(4, 5), fields))
    infos = (
        TensorInfo(name="dense", shape=(4, 5), dtype="float32"),
        *(TensorInfo(name=f"field_{i}", shape=(4,), dtype="int64") for i in range(3)),
    )
    model, _ = recognise(program, infos)
    assert [lookup.input for lookup in model.lookups] == ["field_0", "field_1", "field_2"]
    assert [info.id_bounds for info in model.inputs] == [(), (10,), (20,), (30,)]


def test_the_structure_is_what_the_model_says():
    program, infos = exported(Facebook(), standard(2), dynamic=True)
    model, _ = recognise(program, infos)
    assert [(t.name, t.rows, t.dim) for t in model.tables] == [(f"tables.{i}", r, 4) for i, r in enumerate(ROWS)]
    assert model.interaction.kind == "dot" and len(model.interaction.pairs) == 6
    assert [d.name for d in (*model.bottom, *model.top)] == ["lower.0", "lower.2", "upper.0", "upper.2"]
    assert [d.activation for d in model.top] == ["relu", "none"] and model.output_activation == "sigmoid"
    assert model.inputs[1].id_bounds == ROWS and model.output.meaning == "probability"


def test_fields_with_offsets_in_one_table_become_tables_of_their_own():
    program, infos = exported(Functional(), standard(2), dynamic=False)
    model, _ = recognise(program, infos)
    assert [t.rows for t in model.tables] == [10, 20, 30]
    assert model.inputs[1].id_bounds == (10, 20, 30)


def test_bags_keep_their_pooling_and_padding():
    program, infos = exported(Bags(), [("ids", ids_of(2, 9), 0)], dynamic=False)
    model, _ = recognise(program, infos)
    assert [(x.column, x.length, x.pooling, x.padding_index) for x in model.lookups] == [
        (0, 3, "sum", None),
        (3, 4, "mean", 2),
        (7, 2, "mean", None),
    ]


def test_a_shared_table_is_stored_once():
    model, _ = recognise(*exported(SharedTable(), standard(2), dynamic=False))
    assert [lookup.table for lookup in model.lookups] == [0, 0, 1] and len(model.tables) == 2


def test_a_recognised_recommender_survives_its_folder(tmp_path):
    model, arrays = recognise(*exported(Bags(), [("ids", ids_of(2, 9), 0)], dynamic=False))
    save(model, arrays, tmp_path / "saved")
    again, mapped = load(tmp_path / "saved")
    assert again == model
    assert all(np.array_equal(mapped[name], arrays[name]) for name in mapped)


def test_a_misread_structure_does_not_pass_the_proof(monkeypatch):
    import converters.recommender.recognise as module

    program, infos = exported(Facebook(), standard(2), dynamic=False)
    true = module.assemble

    def wrong(*args, **kwargs):
        model, arrays = true(*args, **kwargs)
        name = model.tables[2].weight
        return model, arrays | {name: arrays[name][::-1].copy()}

    monkeypatch.setattr(module, "assemble", wrong)
    assert module.recognise(program, infos) is None
