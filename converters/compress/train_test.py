"""Training goes on where it was stopped, stops when nothing gets better, and updates only rows that were looked up."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from converters.compress.batches import ArrayBatches  # noqa: E402
from converters.compress.dqrm import DqrmPlan, prepare  # noqa: E402
from converters.compress.optimisers import make_optimisers, rowwise_adagrad  # noqa: E402
from converters.compress.replace import embeddings, replace_modules  # noqa: E402
from converters.compress.train import TrainPlan, train  # noqa: E402
from edge_deploy.core.errors import BadInput  # noqa: E402
from edge_deploy.zoo.dlrm import DlrmConfig, build  # noqa: E402

ROWS = (60, 9)
PLAN = TrainPlan(epochs=3, rate=0.05, checkpoint_every=4)


class Killed(Exception):
    pass


def log(count=600, *, seed=0):
    generator = np.random.default_rng(seed)
    ids = generator.integers(0, ROWS, (count, 2)).astype(np.int32)
    dense = generator.normal(size=(count, 3)).astype(np.float32)
    labels = (generator.random(count) < 1 / (1 + np.exp(-dense[:, 0] - (ids[:, 1] - 4)))).astype(np.float32)
    return {"dense": dense, "ids": ids, "labels": labels}


def model(seed=0):
    return build(DlrmConfig(dense_features=3, table_rows=ROWS, dim=4, bottom=(8,), top=(8,), bags=True, seed=seed))


def run(net, *, plan=PLAN, **options):
    data = log()
    held = ArrayBatches(**{name: array[500:] for name, array in data.items()}, batch=64, shuffle=False)
    own = ArrayBatches(**{name: array[:500] for name, array in data.items()}, batch=50)
    return train(net, own, held, plan, **options)


@pytest.mark.parametrize("optimiser", ["rowwise-adagrad", "adam", "sgd", "adagrad"])
@pytest.mark.parametrize("stop", [4, 11, 30])
def test_a_stopped_run_ends_like_one_that_was_not(tmp_path, optimiser, stop):
    plan = TrainPlan(epochs=3, rate=0.05, checkpoint_every=4, optimiser=optimiser)

    def kill(step, loss):
        if step == stop:
            raise Killed

    whole, parts = model(), model()
    for net in (whole, parts):
        prepare(net, DqrmPlan(refresh_steps=5))
    wanted = run(whole, plan=plan)
    with pytest.raises(Killed):
        run(parts, plan=plan, checkpoint=tmp_path / "state.pt", hook=kill)
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]
    again = model(seed=5)
    prepare(again, DqrmPlan(refresh_steps=5))
    got = run(again, plan=plan, checkpoint=tmp_path / "state.pt")
    assert (got.curve, got.best_step) == (wanted.curve, wanted.best_step)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    def kill(step, loss):
        if step == 5:
            raise Killed

    state = tmp_path / "state.pt"
    with pytest.raises(Killed):
        run(model(), checkpoint=state, hook=kill)
    with pytest.raises(BadInput, match=r"rate was 0\.05, is 0\.1"):
        run(model(), plan=TrainPlan(epochs=3, rate=0.1, checkpoint_every=4), checkpoint=state)
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(BadInput, match="is no checkpoint of a training, or damaged"):
        run(model(), checkpoint=state)


def test_rowwise_adagrad_is_what_its_formula_says():
    generator = np.random.default_rng(0)
    weight = torch.nn.Parameter(torch.from_numpy(generator.normal(size=(6, 3)).astype(np.float32)))
    values, total = weight.detach().numpy().astype(np.float64), np.zeros(6)
    optimiser = rowwise_adagrad()([weight], lr=0.1)
    for _ in range(5):
        rows = generator.integers(0, 6, 4)
        parts = generator.normal(size=(4, 3)).astype(np.float32)
        weight.grad = torch.sparse_coo_tensor(torch.from_numpy(rows)[None], torch.from_numpy(parts), (6, 3))
        optimiser.step()
        gradient = np.zeros((6, 3))
        np.add.at(gradient, rows, parts)
        total += (gradient**2).mean(axis=1)
        values -= 0.1 * gradient / (np.sqrt(total)[:, None] + 1e-8)
    assert np.allclose(weight.detach().numpy(), values, atol=1e-5)


def test_dense_and_sparse_gradients_give_the_same_rows():
    start = torch.randn(7, 3)
    one, other = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    gradient = torch.sparse_coo_tensor(torch.tensor([[1, 4, 1]]), torch.randn(3, 3), (7, 3))
    for weight, own in ((one, gradient), (other, gradient.to_dense())):
        weight.grad = own
        rowwise_adagrad()([weight], lr=0.1).step()
    assert torch.allclose(one, other, atol=1e-6)
    assert torch.equal(one[0], start[0]) and not torch.equal(one[1], start[1])


def test_training_stops_when_looks_bring_nothing_better():
    patient = TrainPlan(epochs=50, rate=0.5, patience=2, checkpoint_every=100)
    done = run(model(), plan=patient)
    assert done.steps < 500
    assert done.validation_auc == max(value for _, value in done.curve)
    assert done.best_step == max(done.curve, key=lambda look: look[1])[0]


def test_any_module_that_looks_rows_up_can_stand_for_a_table():
    class Halved(torch.nn.Module):
        is_table = True

        def __init__(self, table):
            super().__init__()
            self.memory = torch.nn.Parameter(table.weight.detach()[: len(table.weight) // 2 + 1].flatten().clone())
            self.rows, self.dim = len(table.weight) // 2 + 1, table.weight.shape[1]

        def forward(self, ids):
            return self.memory.reshape(-1, self.dim)[ids[:, 0] % self.rows]

    net = model()
    replace_modules(net, embeddings(net), lambda name, table: Halved(table))
    assert run(net).validation_auc > 0.6


def test_every_process_sees_its_own_batches_and_all_rows_are_seen_once():
    data = log(400)
    data["dense"][:, 0] = np.arange(400)

    def rows(**options):
        own = ArrayBatches(**data, batch=50, **options)
        return [int(value) for dense, _, _ in own.epoch(1) for value in dense[:, 0]]

    alone = rows()
    assert sorted(alone) == list(range(400))
    shared = [rows(rank=rank, world=2) for rank in (0, 1)]
    assert sorted(shared[0] + shared[1]) == list(range(400))
    assert rows() == alone != rows(seed=1)
    own = ArrayBatches(**data, batch=50)
    late = [int(value) for dense, _, _ in own.epoch(1, first_step=6) for value in dense[:, 0]]
    assert late == alone[300:]


def test_wrong_plans_and_empty_logs_say_what_would_be_right():
    with pytest.raises(BadInput, match="must be one of sgd"):
        make_optimisers(model(), "lamb", rate=0.1)
    with pytest.raises(BadInput, match="rates must be above 0"):
        make_optimisers(model(), "sgd", rate=0.0)
    with pytest.raises(BadInput, match="no row"):
        ArrayBatches(dense=np.zeros((0, 1)), ids=np.zeros((0, 1)), labels=np.zeros(0))
    with pytest.raises(BadInput, match="the loss at step"):
        run(model(), plan=TrainPlan(rate=1e30, optimiser="sgd"))
