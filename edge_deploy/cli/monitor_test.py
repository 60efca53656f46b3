"""Monitoring as a user does it: nothing to say on samples like those before, an alarm for each thing that moves."""

import gzip
import json

import numpy as np
import pytest

pytest.importorskip("torch")

from converters.contracts import CaptureRequest
from edge_deploy.api.convert import convert
from edge_deploy.api.monitor import monitor, stability_index
from edge_deploy.api.monitor_values import Limits, MonitorRequest
from edge_deploy.api.request import ConvertRequest, parse_input
from edge_deploy.cli.main import main
from edge_deploy.core.errors import BadInput
from edge_deploy.core.quant_spec import spec_for_recipe

pytestmark = pytest.mark.slow
IMAGE = "image:1,1,8,8"
COLUMNS = (("dense", "age"), ("categorical", "site"), ("categorical", "kind"), ("categorical", "day"))


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A CNN at INT8 with samples like those it was trained on, and twice as bright ones."""
    import torch

    from edge_deploy.zoo.small_cnn import train_digits, write_npz

    folder = tmp_path_factory.mktemp("digits")
    network, training, test = train_digits(seed=1, epochs=3)
    torch.save(network.state_dict(), folder / "digits.pt")
    write_npz((training[0][:100], training[1][:100]), folder / "calibrate.npz")
    write_npz((test[0][:150], test[1][:150]), folder / "before.npz")
    write_npz((test[0][150:300], test[1][150:300]), folder / "fresh.npz")
    write_npz((test[0][150:300] * 3, test[1][150:300]), folder / "bright.npz")
    convert(
        ConvertRequest(
            capture=source(folder),
            targets=("tflite",),
            specs=(spec_for_recipe("int8"),),
            out=folder / "out",
            calibrate=folder / "calibrate.npz",
        )
    )
    return folder


def source(folder):
    return CaptureRequest(
        source="edge_deploy.zoo.small_cnn:small_cnn", weights=folder / "digits.pt", inputs=(parse_input(IMAGE),)
    )


def request(folder, data, **changes):
    artifact = next((folder / "out").glob("*/manifest.json")).parent
    return MonitorRequest(folder=artifact, source=source(folder), data=folder / data, **changes)


def test_samples_like_those_before_raise_no_alarm(digits):
    report = monitor(request(digits, "fresh.npz", reference=digits / "before.npz", layer_samples=64))
    assert not report.is_time_to_recalibrate, [check.text for check in report.checks if check.is_over]
    assert {check.kind for check in report.checks} == {"quality", "shift", "drift", "overflow"}
    assert report.samples == 150 and report.differences[0].metric == "accuracy"


def test_brighter_images_leave_the_stored_ranges_and_the_layers_are_named(digits):
    report = monitor(request(digits, "bright.npz", layer_samples=64))
    over = {check.what: check for check in report.checks if check.kind == "overflow" and check.is_over}
    assert report.is_time_to_recalibrate and "image" in over
    assert over["image"].value > 0.05
    assert report.checks[0].is_over
    assert any("--reference" in note for note in report.notes)


def test_the_command_exits_with_8_when_it_is_time(digits, capsys):
    artifact = next((digits / "out").glob("*/manifest.json")).parent
    words = ["monitor", str(artifact), "--source", "edge_deploy.zoo.small_cnn:small_cnn", "--input", IMAGE]
    words += ["--weights", str(digits / "digits.pt"), "--layer-samples", "32"]
    with pytest.raises(SystemExit) as stopped:
        main([*words, "--data", str(digits / "bright.npz")])
    assert stopped.value.code == 8 and "time to recalibrate" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        main([*words, "--data", str(digits / "fresh.npz"), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert stopped.value.code == 0 and told["recalibrate"] is False


def test_a_handful_of_samples_and_limits_of_nothing_are_refused(digits):
    with np.load(digits / "fresh.npz") as archive:
        np.savez(digits / "few.npz", **{name: archive[name][:5] for name in archive.files})
    with pytest.raises(BadInput, match=r"few.npz: 5 samples: at least 20"):
        monitor(request(digits, "few.npz"))
    with pytest.raises(BadInput, match="--max-drop 0: must be above 0"):
        Limits(drop=0)


def test_a_log_with_new_values_is_encoded_as_in_training_and_their_share_is_told(tmp_path, capsys):
    from converters.compress.train import TrainPlan
    from edge_deploy.api.train import TrainRequest, train_recommender
    from edge_deploy.zoo.click_schema import read_schema

    rng = np.random.default_rng(3)

    def log(name, sites):
        rows = [(rng.integers(0, 9), rng.choice(sites), rng.choice(["a", "b"]), rng.integers(0, 7)) for _ in range(800)]
        labels = [int(age > 4) ^ int(rng.random() < 0.2) for age, *_ in rows]
        lines = [",".join(map(str, (y, *row))) for y, row in zip(labels, rows, strict=True)]
        with gzip.open(tmp_path / name, "wt") as file:
            file.write("\n".join(["clicked,age,site,kind,day", *lines]) + "\n")
        return tmp_path / name

    old = log("old.csv.gz", [f"s{i}" for i in range(20)])
    new = log("new.csv.gz", [f"s{i}" for i in range(10, 40)])
    schema = tmp_path / "schema.toml"
    columns = "".join(f'[[{kind}]]\nfield = "{name}"\n' for kind, name in COLUMNS)
    schema.write_text(f'label = "clicked"\n{columns}rows = 7\n')
    made = tmp_path / "made"
    train_recommender(
        TrainRequest(
            log=old, schema=read_schema(schema), out=made, dim=4, bottom=(8,), top=(8,), plan=TrainPlan(epochs=1)
        )
    )
    module = next(made.glob("*.py")).stem
    capture = CaptureRequest(
        source=f"{module}:{module}",
        search_path=(str(made),),
        weights=made / "weights.pt",
        inputs=(parse_input("dense:1,1"), parse_input("sparse:1,3:int64")),
    )
    convert(
        ConvertRequest(
            capture=capture,
            targets=("tflite",),
            specs=(spec_for_recipe("int8"),),
            out=tmp_path / "out",
            features=made / "features.json",
            calibrate=made / "eval.npz",
        )
    )
    artifact = next((tmp_path / "out").glob("*/manifest.json")).parent
    asked = MonitorRequest(folder=artifact, source=capture, data=new, reference=old, schema=read_schema(schema))
    report = monitor(asked)
    shares = {check.what: check for check in report.checks if check.kind == "unseen"}
    assert 0.55 < shares["site"].value < 0.78 and shares["site"].is_over
    assert shares["site"].reference == 0 and not shares["kind"].is_over
    assert report.is_time_to_recalibrate


def test_the_stability_index_is_zero_for_the_same_scores_and_grows_with_the_shift():
    scores = np.random.default_rng(0).normal(size=5000)
    same = stability_index(scores, np.random.default_rng(1).normal(size=5000))
    little, much = (stability_index(scores, scores + shift) for shift in (0.3, 1.0))
    assert stability_index(scores, scores) == 0 and same < 0.02 < little < 0.25 < much
    assert np.isfinite(stability_index(np.zeros(50), np.ones(50)))
