import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.passes.embedding_bag import limit_norms, rewrite, rewrite_program
from edge_deploy.core.errors import BadInput, Unsupported
from runtimes.formats.tflite_file import read_tflite

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402  # after the skip
from torch.nn import functional  # noqa: E402

ROWS, DIM = 11, 4


class One(nn.Module):
    """One bag; `call` chooses nn.EmbeddingBag or functional.embedding_bag, constant offsets live in a buffer."""

    def __init__(self, *, call="module", constant=None, **options):
        super().__init__()
        self.bag = nn.EmbeddingBag(ROWS, DIM, **options)
        with torch.no_grad():
            self.bag.weight.copy_(torch.randn(ROWS, DIM, generator=torch.Generator().manual_seed(0)))
        self.call = call
        self.options = {k: v for k, v in options.items() if k != "_weight"}
        if constant is not None:
            self.register_buffer("constant", constant)

    def forward(self, ids, offsets=None, per_sample_weights=None):
        offsets = self.constant if hasattr(self, "constant") else offsets
        if self.call == "module":
            return self.bag(ids, offsets, per_sample_weights)
        return functional.embedding_bag(
            ids, self.bag.weight, offsets, per_sample_weights=per_sample_weights, **self.options
        )


@st.composite
def cases(draw):
    """Options and arguments of an embedding bag in any of its forms."""
    mode = draw(st.sampled_from(["sum", "mean"]))
    options = {"mode": mode, "padding_idx": draw(st.sampled_from([None, 0, 3, ROWS - 1, -2]))}
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    kind = torch.int64 if draw(st.booleans()) else torch.int32
    if draw(st.booleans()):
        shape = (draw(st.integers(1, 5)), draw(st.integers(1, 4)))
        ids = torch.randint(0, ROWS, shape, generator=generator).to(kind)
        offsets = None
    else:
        options["include_last_offset"] = draw(st.booleans())
        lengths = torch.tensor(draw(st.lists(st.integers(0, 4), min_size=1, max_size=6)))
        ids = torch.randint(0, ROWS, (int(lengths.sum()),), generator=generator).to(kind)
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]).to(kind)
        if not options["include_last_offset"]:
            offsets = offsets[:-1]
    weights = None
    if mode == "sum" and draw(st.booleans()):
        weights = torch.randn(ids.shape, generator=generator)
    return options, ids, offsets, weights


@settings(max_examples=150, deadline=None)
@given(cases())
def test_a_rewritten_module_equals_eager(case):
    options, *arguments = case
    model = One(**options).eval()
    with torch.no_grad():
        torch.testing.assert_close(rewrite(model)(*arguments), model(*arguments), atol=1e-6, rtol=0)


@settings(max_examples=12, deadline=None)
@given(cases(), st.sampled_from(["module", "functional"]), st.booleans(), st.booleans())
def test_a_rewritten_program_equals_eager(case, call, constant_offsets, decomposed):
    options, ids, offsets, weights = case
    if ids.numel() == 0:
        return  # torch.export itself refuses nothing here, but no model is exported on an empty example
    held = offsets if constant_offsets else None
    model = One(call=call, constant=held, **options).eval()
    arguments = (ids, None if held is not None else offsets, weights)
    program = torch.export.export(model, arguments)
    if decomposed:
        program = program.run_decompositions()
    program = rewrite_program(program)
    assert not _bag_operators(program)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(*arguments), model(*arguments), atol=1e-6, rtol=0)


def _targets(program):
    return [str(node.target) for node in program.graph.nodes if node.op == "call_function"]


def _bag_operators(program):
    return [target for target in _targets(program) if "embedding_bag" in target]


@pytest.mark.parametrize("mode", ["sum", "mean"])
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic batch"])
def test_bags_of_one_id_become_a_plain_look_up(mode, dynamic):
    batch = {0: torch.export.Dim("batch", min=2, max=64)} if dynamic else {}
    ids = torch.tensor([[3], [1], [7]])
    program = torch.export.export(One(mode=mode).eval(), (ids,), dynamic_shapes=(batch,))
    found = set(_targets(rewrite_program(program))) - {"aten.squeeze.dim"}
    assert {target for target in found if not target.startswith("aten.sym_")} == {"aten.embedding.default"}


def test_constant_offsets_with_one_id_a_bag_become_a_plain_look_up():
    ids = torch.tensor([3, 1, 7])
    model = One(mode="mean", constant=torch.arange(3)).eval()
    program = rewrite_program(torch.export.export(model, (ids,)))
    assert _targets(program) == ["aten.embedding.default"]
    assert torch.equal(program.module()(ids), model(ids))


def test_offsets_of_a_single_bag_are_known_without_their_value():
    class Bags(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.EmbeddingBag(20, 4, mode="sum")

        def forward(self, ids, offsets):
            return self.table(ids, offsets)

    model, offsets = Bags().eval(), torch.tensor([0])
    for ids in (torch.tensor([7]), torch.tensor([7, 1, 19])):
        program = rewrite_program(torch.export.export(model, (ids, offsets)))
        assert not _bag_operators(program)
        used = {node.name for node in program.graph.nodes if node.op == "placeholder" and node.users}
        assert "offsets" not in used
        torch.testing.assert_close(program.module()(ids, offsets), model(ids, offsets))


def test_constant_offsets_made_in_the_graph_are_seen_too():
    class Made(nn.Module):
        def __init__(self):
            super().__init__()
            self.bag = nn.EmbeddingBag(ROWS, DIM, mode="sum")
            self.register_buffer("lengths", torch.full((3,), 2))

        def forward(self, ids):
            return self.bag(ids, self.lengths.cumsum(0) - self.lengths)

    model, ids = Made().eval(), torch.tensor([3, 1, 7, 7, 0, 2])
    program = rewrite_program(torch.export.export(model, (ids,)))
    assert "aten.sum.dim_IntList" in _targets(program) and "aten.cumsum.default" not in _targets(program)
    torch.testing.assert_close(program.module()(ids), model(ids))


def test_lengths_turned_into_offsets_by_the_users_code_stay_inputs():
    class Lengths(nn.Module):
        def __init__(self):
            super().__init__()
            self.bag = nn.EmbeddingBag(ROWS, DIM, mode="mean")

        def forward(self, ids, lengths):
            return self.bag(ids, lengths.cumsum(0) - lengths)

    model, ids = Lengths().eval(), torch.tensor([3, 1, 7, 7, 0, 2])
    program = rewrite_program(torch.export.export(model, (ids, torch.tensor([2, 0, 4]))))
    for lengths in ([2, 0, 4], [0, 0, 6], [6, 0, 0], [1, 4, 1]):
        arguments = (ids, torch.tensor(lengths))
        torch.testing.assert_close(program.module()(*arguments), model(*arguments), atol=1e-6, rtol=0)


def test_a_dynamic_batch_survives_the_rewrite():
    batch = {0: torch.export.Dim("batch", min=2, max=64)}
    model = One(mode="mean", padding_idx=0).eval()
    program = rewrite_program(
        torch.export.export(model, (torch.ones(3, 5, dtype=torch.int64),), dynamic_shapes=(batch,))
    )
    ids = torch.randint(0, ROWS, (17, 5), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(program.module()(ids), model(ids), atol=1e-6, rtol=0)


def test_a_program_survives_saving_after_the_rewrite(tmp_path):
    model, ids = One(mode="sum").eval(), torch.tensor([[3, 1], [7, 2]])
    program = rewrite_program(torch.export.export(model, (ids,)))
    torch.export.save(program, tmp_path / "model.pt2")
    read = torch.export.load(tmp_path / "model.pt2")
    assert torch.equal(read.module()(ids), program.module()(ids))


def test_layer_names_survive_the_rewrite():
    program = rewrite_program(torch.export.export(One(mode="sum").eval(), (torch.tensor([[3, 1]]),)))
    lookup = next(node for node in program.graph.nodes if str(node.target) == "aten.embedding.default")
    assert [path for path, _ in lookup.meta["nn_module_stack"].values()][-1] == "bag"


def test_the_original_module_stays_and_shares_its_table():
    model = One(mode="sum")
    changed = rewrite(model)
    assert isinstance(model.bag, nn.EmbeddingBag) and not isinstance(changed.bag, nn.EmbeddingBag)
    assert changed.bag.weight is model.bag.weight
    assert changed.state_dict().keys() == model.state_dict().keys()


def test_a_limited_norm_is_folded_into_the_table():
    bag = nn.EmbeddingBag(ROWS, DIM, mode="sum", max_norm=0.5)
    table = nn.Embedding(ROWS, DIM, max_norm=0.5)
    ids = torch.arange(ROWS).reshape(1, -1)
    changed = rewrite(nn.ModuleList([bag, table]))
    found = changed[0](ids), changed[1](ids)
    torch.testing.assert_close(found[0], bag(ids), atol=1e-6, rtol=0)
    torch.testing.assert_close(found[1], table(ids), atol=1e-6, rtol=0)


def test_limited_norms_and_constant_offsets_go_through_the_program():
    model = One(mode="sum", max_norm=0.5, constant=torch.arange(3)).eval()
    ids = torch.tensor([3, 1, 7])
    program = rewrite_program(torch.export.export(limit_norms(model), (ids,)))
    assert model.bag.max_norm == 0.5 and _targets(program) == ["aten.embedding.default"]
    torch.testing.assert_close(program.module()(ids), model(ids), atol=1e-6, rtol=0)


def test_a_bag_that_two_parents_share_stays_shared():
    bag = nn.EmbeddingBag(ROWS, DIM)
    changed = rewrite(nn.ModuleList([nn.Sequential(bag), nn.Sequential(bag), bag]))
    assert changed[0][0] is changed[1][0] is changed[2]
    assert not any(isinstance(child, nn.EmbeddingBag) for child in changed.modules())


def test_the_maximum_is_refused_by_layer_name():
    model = One(mode="max").eval()
    with pytest.raises(Unsupported, match=r"layer bag \(EmbeddingBag\): takes the max"):
        rewrite(model)
    with pytest.raises(Unsupported, match=r"layer bag .*takes the maximum"):
        rewrite_program(torch.export.export(model, (torch.tensor([[3, 1]]),)))


def test_a_norm_limited_during_look_up_is_refused_in_a_program():
    model = One(mode="sum", max_norm=1.0).eval()
    with pytest.raises(Unsupported, match=r"layer bag .*max_norm"):
        rewrite_program(torch.export.export(model, (torch.tensor([[3, 1]]),)))


def test_wrong_arguments_say_what_is_right():
    bag = rewrite(nn.EmbeddingBag(ROWS, DIM, mode="mean"))
    with pytest.raises(BadInput, match=r"\[bags, length\], or \[n\] with offsets"):
        bag(torch.tensor([1, 2]))
    with pytest.raises(BadInput, match="only sum takes weights"):
        bag(torch.tensor([[1]]), None, torch.ones(1, 1))


def _lite(model, arguments):
    litert_torch = pytest.importorskip("litert_torch")
    return litert_torch.convert(model, arguments)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["rows", "flat"])
def test_the_rewritten_module_converts_to_tflite(form, tmp_path):
    ids, offsets = torch.tensor([3, 1, 7, 7, 0, 2]), torch.tensor([0, 2, 2])
    model = One(mode="mean", padding_idx=7).eval()
    arguments = (ids.reshape(3, 2),) if form == "rows" else (ids, offsets)
    lite = _lite(rewrite(model), arguments)
    lite.export(tmp_path / "bag.tflite")
    operators = [operator.op for operator in read_tflite(tmp_path / "bag.tflite").subgraphs[0].operators]
    assert operators.count("EMBEDDING_LOOKUP") == 1
    expected = model(*arguments).detach().numpy()
    assert abs(lite(*[a.int() for a in arguments]) - expected).max() < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("form", ["rows", "weighted", "flat"])
def test_the_rewritten_program_runs_on_executorch(form):
    pytest.importorskip("executorch")
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from executorch.runtime import Runtime

    ids = torch.tensor([3, 1, 7, 7, 0, 2])
    arguments = {
        "rows": {"ids": ids.reshape(3, 2)},
        "weighted": {"ids": ids.reshape(3, 2), "per_sample_weights": torch.randn(3, 2)},
        "flat": {"ids": ids, "offsets": torch.tensor([0, 2, 2])},
    }[form]
    model = One(mode="sum", padding_idx=7).eval()
    program = rewrite_program(torch.export.export(model, (), arguments))
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
    content = lowered.buffer  # the runtime reads from it while it runs
    loaded = Runtime.get().load_program(content)
    method = loaded.load_method("forward")
    found = method.execute(list(arguments.values()))[0]
    torch.testing.assert_close(found, model(**arguments), atol=1e-6, rtol=0)
