"""A DLRM from arrays alone: names, shapes and a few words."""

import numpy as np
import pytest

from converters.loading.dlrm_arrays import Description, dlrm_of, is_description, read_description
from converters.recommender.reference import run_reference
from converters.recommender.rows import StoredArray
from edge_deploy.core.errors import BadInput


def stored(shapes, tmp_path):
    return {
        name: StoredArray(path=tmp_path / "m", offset=0, dtype="float32", shape=shape) for name, shape in shapes.items()
    }


def shapes_of(*, rows=(10, 7, 12), dim=4, top=None, names=("emb_l.{}.weight", "bot_l.{}", "top_l.{}")):
    pairs = (len(rows) + 1) * len(rows) // 2
    found = {names[0].format(k): (n, dim) for k, n in enumerate(rows)}
    for name, widths in ((names[1], (5, 8, dim)), (names[2], (top or dim + pairs, 6, 1))):
        for place in range(len(widths) - 1):
            found[f"{name.format(2 * place)}.weight"] = (widths[place + 1], widths[place])
            found[f"{name.format(2 * place)}.bias"] = (widths[place + 1],)
    return found


def test_dot_products_are_recognised_by_the_width_of_the_top_mlp(tmp_path):
    model, places = dlrm_of(stored(shapes_of(), tmp_path), Description(), where="m")
    assert model.interaction.kind == "dot"
    assert model.interaction.pairs == ((1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2))
    assert [table.rows for table in model.tables] == [10, 7, 12]
    assert model.inputs[1].id_bounds == (10, 7, 12)
    assert set(places) == set(shapes_of())


def test_concatenation_likewise(tmp_path):
    model, _ = dlrm_of(stored(shapes_of(top=4 + 3 * 4), tmp_path), Description(), where="m")
    assert model.interaction.top_inputs == ("bottom", "lookup:0", "lookup:1", "lookup:2")


def test_tables_stand_in_the_order_of_their_numbers(tmp_path):
    shapes = dict(sorted(shapes_of(rows=tuple(range(5, 17))).items()))  # emb_l.10 before emb_l.2
    model, _ = dlrm_of(stored(shapes, tmp_path), Description(), where="m")
    assert [table.rows for table in model.tables] == list(range(5, 17))


def test_a_description_names_what_shapes_do_not_tell(tmp_path):
    path = tmp_path / "d.toml"
    path.write_text(
        '[dlrm]\nweights = "m"\ntables = ["c", "a", "b"]\nbottom = "low.*"\ntop = "high.*"\noutput = "logit"\n'
        'ids = [1, 3, 2]\npooling = "mean"\nids_input = "ids"\n'
    )
    assert is_description(path)
    shapes = shapes_of(names=("{}", "low.{}", "high.{}"))
    shapes = {{"0": "a", "1": "b", "2": "c"}.get(name, name): shape for name, shape in shapes.items()}
    model, _ = dlrm_of(stored(shapes, tmp_path), read_description(path), where="d")
    assert [table.name for table in model.tables] == ["c", "a", "b"]
    assert [(look.column, look.length, look.pooling) for look in model.lookups] == [
        (0, 1, "none"),
        (1, 3, "mean"),
        (4, 2, "mean"),
    ]
    assert model.output.meaning == "logit" and model.inputs[1].name == "ids"


def test_it_computes_what_the_module_of_that_structure_computes(tmp_path):
    torch = pytest.importorskip("torch")
    from edge_deploy.zoo.dlrm import DlrmConfig, build

    module = build(DlrmConfig(dense_features=5, table_rows=(10, 7, 12), dim=4, bottom=(8,), top=(6,))).eval()
    state = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    places = stored({name: array.shape for name, array in state.items()}, tmp_path)
    model, _ = dlrm_of(places, Description(), where="m")
    random = np.random.default_rng(0)
    dense = random.normal(size=(9, 5)).astype(np.float32)
    ids = np.stack([random.integers(0, rows, 9) for rows in (10, 7, 12)], 1)
    with torch.no_grad():
        wanted = module(torch.from_numpy(dense), torch.from_numpy(ids)).numpy()
    found = run_reference(model, state, {"dense": dense, "sparse": ids}, batch=9)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"top_l.0.weight": (6, 11)}, "takes 11 values: must be 10"),
        ({"bot_l.2.weight": (4, 9)}, "bot_l.0 gives 8"),
        ({"bot_l.2.bias": (3,)}, "bias of shape"),
        ({"emb_l.1.weight": (7, 5)}, "takes 10 values"),
        ({"emb_l.1.weight": (0, 4)}, "must be"),
        ({"other.weight": (3,)}, "not part of the DLRM"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_by_name(tmp_path, change, message):
    with pytest.raises(BadInput, match=message):
        dlrm_of(stored({**shapes_of(), **change}, tmp_path), Description(), where="m")


def test_unknown_words_in_a_description_are_refused(tmp_path):
    path = tmp_path / "d.toml"
    path.write_text('[dlrm]\nweigths = "m"\n')
    with pytest.raises(BadInput, match="did you mean weights"):
        read_description(path)
