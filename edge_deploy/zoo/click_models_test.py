"""A DLRM trained on a log learns what was planted and is laid down as files that stand alone."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest

from edge_deploy.core.digest import sample_sha256
from edge_deploy.core.errors import BadInput
from edge_deploy.core.features import encode_rows, read_features
from edge_deploy.zoo import dlrm
from edge_deploy.zoo.click_models import read_dataset, train_click_model
from edge_deploy.zoo.dlrm_training import EncodedPart, TrainingPlan, score, train
from edge_deploy.zoo.metrics import auc

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("dlrm")
    trained = train_click_model("criteo_generated", out, plan=TrainingPlan(epochs=3))
    return out, trained


def load(folder, trained):
    name = trained.source.split(":")[0]
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = getattr(module, name)()
    model.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
    return model.eval()


def test_importing_the_model_does_not_import_torch():
    code = "import sys, edge_deploy.zoo.dlrm, edge_deploy.zoo.click_models; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_planted_structure_is_learned(folder):
    _, trained = folder
    assert 0.75 < trained.test_auc < 0.85


def test_the_files_give_the_trained_model_again(folder):
    out, trained = folder
    model = load(out, trained)
    with np.load(out / "eval.npz") as arrays:
        part = EncodedPart(dense=arrays["dense"], sparse=arrays["sparse"], labels=arrays["y"])
    assert auc(part.labels, score(model, part)) == pytest.approx(trained.test_auc, abs=1e-9)
    assert [info.shape[1] for info in trained.inputs] == [part.dense.shape[1], part.sparse.shape[1]]
    assert (part.sparse < np.asarray(trained.inputs[1].id_bounds)).all()


def test_golden_rows_lead_from_raw_strings_to_the_score(folder):
    out, trained = folder
    spec = read_features(out)
    assert len(spec.golden) == 32
    dense, ids = encode_rows(spec, [row.raw for row in spec.golden])
    with torch.no_grad():
        scores = load(out, trained)(torch.from_numpy(dense), torch.from_numpy(ids))[:, 0].numpy()
    np.testing.assert_allclose(scores, [row.score for row in spec.golden], atol=1e-6)


def test_calibration_and_evaluation_share_no_sample(folder):
    out, _ = folder
    digests = []
    for name in ("calibration.npz", "eval.npz"):
        with np.load(out / name) as arrays:
            pairs = zip(arrays["dense"], arrays["sparse"], strict=True)
            digests.append({sample_sha256({"dense": d, "sparse": s}) for d, s in pairs})
    assert len(digests[0]) > 400 and not digests[0] & digests[1]


@pytest.mark.parametrize("bags", [False, True])
@pytest.mark.parametrize("interaction", ["dot", "concat"])
def test_every_shape_of_dlrm_scores_and_learns(interaction, bags):
    config = dlrm.DlrmConfig(
        dense_features=3, table_rows=(5, 9), dim=4, bottom=(8,), top=(8,), interaction=interaction, bags=bags
    )
    generator = np.random.default_rng(0)
    ids = np.stack([generator.integers(0, 5, 2000), generator.integers(0, 9, 2000)], axis=1)
    part = EncodedPart(
        dense=generator.normal(size=(2000, 3)).astype(np.float32),
        sparse=ids,
        labels=(ids[:, 0] + ids[:, 1] > 6).astype(np.float32),
    )
    for optimizer, rate in (("adam", 0.01), ("adagrad", 0.1)):
        module = dlrm.build(config)
        result = train(module, part, part, TrainingPlan(optimizer=optimizer, learning_rate=rate, batch=50, epochs=8))
        scores = score(module, part)
        assert scores.shape == (2000, 1) and 0 <= scores.min() <= scores.max() <= 1
        assert (
            auc(part.labels, scores) == pytest.approx(max(result.validation_auc), abs=1e-6)
            and max(result.validation_auc) > 0.95
        )


def test_bags_may_be_replaced_by_other_modules_that_take_the_same_ids():
    model = dlrm.build(dlrm.DlrmConfig(dense_features=2, table_rows=(5, 9), dim=4, bags=True)).eval()
    dense, ids = torch.ones(3, 2), torch.tensor([[0, 8], [4, 1], [2, 2]])
    with torch.no_grad():
        want = model(dense, ids)
        for index, table in enumerate(model.tables):
            model.tables[index] = torch.nn.Sequential(table)
        torch.testing.assert_close(model(dense, ids), want)


def test_training_repeats_with_its_seed():
    part = EncodedPart(
        dense=np.random.default_rng(1).normal(size=(200, 2)).astype(np.float32),
        sparse=np.zeros((200, 1), np.int64),
        labels=np.tile(np.array([0, 1], np.float32), 100),
    )
    runs = []
    for _ in range(2):
        module = dlrm.build(dlrm.DlrmConfig(dense_features=2, table_rows=(1,), dim=4))
        train(module, part, part, TrainingPlan(epochs=2))
        runs.append(score(module, part))
    np.testing.assert_array_equal(*runs)


def test_the_environment_names_the_description(tmp_path, monkeypatch):
    monkeypatch.delenv(dlrm.CONFIG_VARIABLE, raising=False)
    with pytest.raises(BadInput, match="not set"):
        dlrm.configured()
    (tmp_path / "c.json").write_text('{"schema_version": 1, "dense_features": 2, "table_rows": [3], "dim": 0}')
    monkeypatch.setenv(dlrm.CONFIG_VARIABLE, str(tmp_path / "c.json"))
    with pytest.raises(BadInput, match="at least 1"):
        dlrm.configured()


def test_an_unknown_data_set_is_refused_by_name():
    with pytest.raises(BadInput, match="data set banks: unknown"):
        read_dataset("banks", None)
    with pytest.raises(BadInput, match="needs the folder"):
        read_dataset("bank_marketing", None)


@pytest.mark.parametrize(("name", "least"), [("bank_marketing", 0.9), ("movielens_100k", 0.75)])
def test_real_logs_are_learned(data, tmp_path, name, least):
    torch.set_num_threads(1)
    assert train_click_model(name, tmp_path, data=data, plan=TrainingPlan(epochs=4)).test_auc > least
