"""Processes that share the work train the same model as one does, and say how much travelled."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from converters.compress.batches import ArrayBatches  # noqa: E402
from converters.compress.data_parallel import joined  # noqa: E402
from converters.compress.dqrm import DqrmPlan, prepare  # noqa: E402
from converters.compress.train import TrainPlan, train  # noqa: E402
from edge_deploy.core.errors import BadInput  # noqa: E402
from edge_deploy.zoo.dlrm import DlrmConfig, build  # noqa: E402

ROWS = (400, 37, 900)
KINDS = ("dense", "sparse", "sparse-int8")
# torchrun finds a free port by itself; everything happens in one start, because each costs seconds.
SCRIPT = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from converters.compress.data_parallel import joined
from converters.compress.data_parallel_test import KINDS, trained
out = Path({out!r})
with joined("dense"):
    for kind in KINDS:
        found = trained(kind, checkpoint=out / f"{{kind}}.pt", stop=5)
        (out / f"{{kind}}-{{os.environ['RANK']}}.json").write_text(json.dumps(found))
"""


class Killed(Exception):
    pass


def trained(kind, *, checkpoint=None, stop=None):
    """Weights, validation AUC and bytes of a training by as many processes as there are, stopped once on the way."""

    def kill(step, loss):
        if step == stop:
            raise Killed

    generator = np.random.default_rng(0)
    ids = (generator.random((2000, 3)) ** 3 * np.array(ROWS)).astype(np.int64)
    dense = generator.normal(size=(2000, 4)).astype(np.float32)
    labels = (generator.random(2000) < 1 / (1 + np.exp(-dense[:, 0] - (ids[:, 1] % 3 - 1)))).astype(np.float32)
    plan = TrainPlan(epochs=2, rate=0.05, checkpoint_every=4)
    with joined(kind) as exchange:
        rank, world = (0, 1) if exchange is None else (exchange.rank, exchange.world)
        shared = ArrayBatches(
            dense=dense[:1600], ids=ids[:1600], labels=labels[:1600], batch=200 // world, rank=rank, world=world
        )
        held = ArrayBatches(dense=dense[1600:], ids=ids[1600:], labels=labels[1600:], batch=400, shuffle=False)
        for hook in [kill, None] if stop else [None]:
            model = build(DlrmConfig(dense_features=4, table_rows=ROWS, dim=4, bottom=(8,), top=(8,), bags=True))
            prepare(model, DqrmPlan(refresh_steps=3))
            try:
                done = train(model, shared, held, plan, checkpoint=checkpoint, hook=hook, exchange=exchange)
            except Killed:
                continue
        payload = 0 if exchange is None else exchange.payload_bytes / done.steps
        weights = [value for tensor in model.parameters() for value in tensor.detach().flatten().tolist()]
        return {"weights": weights, "auc": done.validation_auc, "bytes": payload, "steps": done.steps}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    root = str(Path(__file__).resolve().parents[2])
    (out / "script.py").write_text(SCRIPT.format(root=root, out=str(out)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    # Processes that cannot resolve this machine's name would not find each other.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [*command, "--local-addr", "127.0.0.1", str(out / "script.py")],
        capture_output=True,
        text=True,
        env=environment,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert not list(out.glob("*.pt"))
    return {kind: [json.loads((out / f"{kind}-{rank}.json").read_text()) for rank in (0, 1)] for kind in KINDS}


def test_all_processes_end_with_the_same_weights(runs):
    for first, second in runs.values():
        assert first["weights"] == second["weights"]


def test_two_processes_train_what_one_trains(runs):
    alone = trained("dense")
    assert runs["dense"][0]["steps"] == alone["steps"]
    for kind in ("dense", "sparse"):
        assert np.allclose(runs[kind][0]["weights"], alone["weights"], atol=2e-3), kind
        assert runs[kind][0]["auc"] == pytest.approx(alone["auc"], abs=0.01)
    assert runs["sparse-int8"][0]["auc"] == pytest.approx(alone["auc"], abs=0.03)


def test_sparse_and_int8_gradients_are_smaller(runs):
    dense, sparse, small = (runs[kind][0]["bytes"] for kind in KINDS)
    assert dense > sparse > 2.5 * small
    parameters = len(runs["dense"][0]["weights"])
    assert dense == 4 * parameters


def test_one_process_needs_no_exchange_and_unknown_kinds_are_refused():
    with joined("sparse") as exchange:
        assert exchange is None
    from converters.compress.data_parallel import GradientExchange

    with pytest.raises(BadInput, match="must be one of dense, sparse, sparse-int8"):
        GradientExchange("int3")
