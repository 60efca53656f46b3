"""A click log becomes a folder that conversions take; a training that was killed goes on, or leaves nothing behind."""

import dataclasses
import shutil

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from converters.compress.dqrm import DqrmPlan  # noqa: E402
from converters.compress.train import TrainPlan  # noqa: E402
from edge_deploy.api.train import TrainRequest, train_recommender  # noqa: E402
from edge_deploy.core.errors import BadInput  # noqa: E402
from edge_deploy.core.features import read_features  # noqa: E402
from edge_deploy.zoo.click_schema import criteo_schema  # noqa: E402
from edge_deploy.zoo.criteo_generator import GeneratedLog, write_log  # noqa: E402
from edge_deploy.zoo.metrics import auc  # noqa: E402

ROWS = 4000


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    path = tmp_path_factory.mktemp("log") / "day-1.tsv.gz"
    write_log(path, rows=ROWS, log=GeneratedLog(table_rows=(50,) * 26))
    return path


def request_for(log, out, **changes):
    plan = TrainPlan(epochs=1, rate=0.05, checkpoint_every=5)
    values = {"dim": 4, "bottom": (8,), "top": (16,), "batch": 256, "quantized": DqrmPlan(), **changes}
    return TrainRequest(log=log, schema=criteo_schema(), out=out, plan=plan, **values)


@pytest.fixture(scope="module")
def trained(log, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "model"
    return out, train_recommender(request_for(log, out))


def test_the_folder_holds_what_a_conversion_takes(trained):
    out, report = trained
    assert sorted(path.name for path in out.iterdir()) == [
        "calibration.npz",
        "config.json",
        "counts.npz",
        "dlrm_day_1.py",
        "eval.npz",
        "features.json",
        "training.json",
        "weights.pt",
    ]
    assert [path.name for path in out.parent.iterdir()] == ["model"]
    assert report.source == "dlrm_day_1:dlrm_day_1" and sum(report.rows) == ROWS
    weights = torch.load(out / "weights.pt", weights_only=True)
    assert weights["tables.3.weight_scale"].shape == (1,) and int(weights["tables.3.weight_bits"]) == 4
    spec = read_features(out)
    assert len(spec.golden) == 32
    assert spec.table_rows == report.table_rows


def test_reported_quality_is_that_of_the_weights_that_were_kept(trained):
    from converters.loading.checkpoint import load_weights
    from converters.loading.torch_factory import make_module

    out, report = trained
    model = make_module(report.source, (str(out),)).eval()
    load_weights(model, out / "weights.pt")
    with np.load(out / "eval.npz") as held, torch.no_grad():
        scores = model(torch.from_numpy(held["dense"]), torch.from_numpy(held["sparse"])).numpy()
        assert auc(held["y"], scores) == pytest.approx(report.test.auc, abs=1e-6)
        spec = read_features(out)
        assert float(model(*(torch.tensor([v]) for v in (spec.golden[0].dense, spec.golden[0].ids)))) == pytest.approx(
            spec.golden[0].score, abs=1e-5
        )


def test_a_killed_training_goes_on_and_ends_alike(log, trained, tmp_path):
    def kill(step, loss):
        if step == 8:
            raise Killed

    out = tmp_path / "model"
    with pytest.raises(Killed):
        train_recommender(request_for(log, out), hook=kill)
    assert [path.name for path in tmp_path.iterdir()] == [".model.training"]
    with pytest.raises(BadInput, match="belongs to another training"):
        train_recommender(request_for(log, out, seed=1))
    steps = []
    report = train_recommender(request_for(log, out), hook=lambda step, loss: steps.append(step))
    assert steps[0] == 6
    assert report.validation_auc == trained[1].validation_auc and report.test == trained[1].test
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_cannot_be_trained_is_said_before_anything_is_written(log, tmp_path):
    out = tmp_path / "model"
    with pytest.raises(BadInput, match="cannot be read"):
        train_recommender(request_for(tmp_path / "none.tsv", out))
    few = tmp_path / "few.tsv"
    write_log(few, rows=1, log=GeneratedLog())
    with pytest.raises(BadInput, match=r"rows leave none for|no row is left"):
        train_recommender(request_for(few, out))
    few.unlink()
    out.mkdir()
    (out / "mine.txt").write_text("x")
    with pytest.raises(BadInput, match="holds other things than a training"):
        train_recommender(request_for(log, out), force=True)
    with pytest.raises(BadInput, match="both validation and test"):
        request_for(log, out, validation=log)
    assert (out / "mine.txt").exists()


def test_another_log_in_the_meantime_is_another_training(log, tmp_path):
    def kill(step, loss):
        raise Killed

    own = tmp_path / "log.tsv"
    write_log(own, rows=1500, log=GeneratedLog())
    with pytest.raises(Killed):
        train_recommender(request_for(own, tmp_path / "model"), hook=kill)
    write_log(own, rows=1600, log=GeneratedLog())
    with pytest.raises(BadInput, match="belongs to another training"):
        train_recommender(request_for(own, tmp_path / "model"))


def test_files_of_their_own_can_validate_and_test(log, tmp_path):
    request = request_for(log, tmp_path / "model", validation=log, test=log, quantized=None)
    report = train_recommender(dataclasses.replace(request, plan=TrainPlan(epochs=1, rate=0.05)))
    assert report.rows == (ROWS, ROWS, ROWS)
    assert report.quantized is None and report.test is not None


def test_int4_can_begin_with_a_float_training_whose_tables_fit_the_log(log, trained, tmp_path):
    out, former = trained
    report = train_recommender(request_for(log, tmp_path / "model", start=out, quantized=DqrmPlan(table_scale="row")))
    assert report.table_rows == former.table_rows
    assert report.validation_auc[0][0] == 0
    assert max(value for _, value in report.validation_auc) >= report.validation_auc[0][1]
    schema = criteo_schema()
    fewer = dataclasses.replace(schema, categorical=schema.categorical[:-1])
    with pytest.raises(BadInput, match="its tables do not fit"):
        train_recommender(dataclasses.replace(request_for(log, tmp_path / "other", start=out), schema=fewer))
    damaged = tmp_path / "damaged"
    shutil.copytree(out, damaged)
    weights = torch.load(out / "weights.pt", weights_only=True)
    torch.save({**weights, "tables.2.weight": torch.zeros(3, 4)}, damaged / "weights.pt")
    with pytest.raises(BadInput, match=r"another shape: tables\.2\.weight is \[3, 4\]"):
        train_recommender(request_for(log, tmp_path / "other", start=damaged))


def test_bits_come_after_the_share_of_the_first_epoch_that_is_trained_in_float(log, tmp_path):
    def losses(name, **changes):
        found = []
        request = request_for(log, tmp_path / name, **changes)
        train_recommender(request, hook=lambda step, loss: found.append(loss))
        return found

    in_float = losses("float", quantized=None)
    late = losses("late", float_share=0.5)
    half = round(0.5 * len(in_float))
    assert late[:half] == pytest.approx(in_float[:half], rel=1e-5)
    assert late[half] != pytest.approx(in_float[half], rel=1e-5)
    with pytest.raises(BadInput, match="float-share"):
        request_for(log, tmp_path / "none", float_share=1.5)
