"""Trainings of the bench are kept, tuned with one budget for all kinds, and go on from tuned weights where asked."""

import json
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("torch")

from converters.compress.dqrm import DqrmPlan
from converters.compress.train import TrainPlan
from edge_deploy.bench import qat_runs
from edge_deploy.bench.qat_runs import Rows, Setting, Task, tuned
from edge_deploy.core.serde import to_json
from edge_deploy.zoo.criteo_generator import GeneratedLog, write_log
from edge_deploy.zoo.metrics import auc


def rows(seed):
    generator = np.random.default_rng(seed)
    ids = generator.integers(0, 9, (400, 2)).astype(np.int32)
    dense = generator.normal(size=(400, 3)).astype(np.float32)
    labels = (generator.random(400) < 1 / (1 + np.exp(-2 * dense[:, 0] - (ids[:, 1] % 3 - 1)))).astype(np.float32)
    return Rows(dense=dense, ids=ids, labels=labels)


def task(reads, **changes):
    def data():
        reads.append(1)
        return rows(0), rows(1), rows(2), (9, 9)

    values = {
        "name": "toy",
        "data": data,
        "told": {"log": "toy"},
        "rates": (0.001, 0.05),
        "plan": TrainPlan(epochs=2),
        "batch": 50,
        "bottom": (8,),
        "top": (8,),
        "dim": 4,
        **changes,
    }
    return Task(**values)


INT4 = Setting(name="INT4", quantized=DqrmPlan())


def test_runs_are_tuned_on_one_seed_and_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(qat_runs, "HOME", tmp_path)
    reads, told = [], []
    first = tuned(task(reads), INT4, 2, fresh=False, tell=told.append)
    assert [run.seed for run in first] == [0, 1] and first[0].rate == first[1].rate
    assert len(list(tmp_path.rglob("*.npz"))) == 3 and len(reads) == 1
    again = tuned(task(reads), INT4, 2, fresh=False, tell=told.append)
    assert len(reads) == 1
    assert all(np.array_equal(one.scores, other.scores) for one, other in zip(first, again, strict=True))
    tuned(task(reads, batch=40), INT4, 1, fresh=False, tell=told.append)
    assert len(reads) == 2, "another setting is another run"


def test_all_kinds_go_on_from_the_same_tuned_float_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(qat_runs, "HOME", tmp_path)
    two_stages = task([], second=TrainPlan(epochs=1))
    float_run = tuned(two_stages, Setting(name="float32"), 1, fresh=False, tell=lambda text: None)[0]
    int4_run = tuned(two_stages, INT4, 1, fresh=False, tell=lambda text: None)[0]
    assert set(float_run.after) == {"table", "row"} and not int4_run.after
    labels = float_run.labels
    assert auc(labels, float_run.scores) > 0.7
    assert abs(auc(labels, int4_run.scores) - auc(labels, float_run.scores)) < 0.05
    # 2 first runs, then every fraction for each kind
    assert len(list(tmp_path.rglob("*.npz"))) == 2 + 2 * len(two_stages.fractions)


def test_what_is_judged_is_what_the_command_does(tmp_path):
    log = tmp_path / "day.tsv"
    write_log(log, rows=600, log=GeneratedLog())
    command = [sys.executable, "-m", "edge_deploy.cli.main", "train", str(log), "--bits", "4"]
    command += ["--epochs", "1", "--batch", "256", "--out", str(tmp_path / "out")]
    subprocess.run(command, check=True, capture_output=True)
    told = json.loads((tmp_path / "out" / "training.json").read_text())
    assert told["quantized"] == to_json(qat_runs.USUAL)
