import dataclasses
import shutil

import numpy as np
import pytest

from device_tests.tasks.data import find_task_folder, open_task_data
from device_tests.tasks.feeds import feed_of, scores_of
from device_tests.tasks.models import describe_model
from device_tests.tasks.quality import auc_interval, measure_quality, wilson_interval
from device_tests.tasks.run import SuiteOptions, run_suite
from device_tests.tasks.task import find_tasks, fits, read_task, suite_names, task_names
from edge_deploy.core.artifact import Signature
from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo
from edge_deploy.zoo.metrics import auc, paired_difference

QUICK = SuiteOptions(min_seconds=0.0, runs=6, rounds=3)
TINY = {task.name: task for task in find_tasks("tiny")}


def signature(shape, out, dtype="float32", **quantization):
    return Signature(
        name="main",
        inputs=(TensorInfo(name="x", shape=shape, dtype=dtype, **quantization),),
        outputs=(TensorInfo(name="y", shape=out, dtype="float32"),),
    )


def test_the_tasks_have_the_published_floors():
    assert {name: task.floor for name, task in TINY.items()} == {
        "image_classification": 0.85,
        "keyword_spotting": 0.90,
        "visual_wake_words": 0.80,
        "anomaly_detection": 0.85,
    }
    assert "dlrm" in task_names()
    assert set(suite_names()) == {"tiny", "recommender"}
    with pytest.raises(BadInput, match="did you mean keyword_spotting"):
        find_tasks("keyword-spoting")


def test_a_task_of_ones_own_is_checked(tmp_path):
    (tmp_path / "own.toml").write_text(
        'title = "own"\nsuites = []\nmetric = "accuracy"\nflor = 0.9\n[data]\nfolders = ["a"]'
    )
    with pytest.raises(BadInput, match="did you mean floor"):
        read_task(tmp_path / "own.toml")
    (tmp_path / "own.toml").write_text(
        'title = "own"\nsuites = []\nmetric = "accuracy"\nfloor = 9\ngroup = "("\n[data]\nfolders = []'
    )
    with pytest.raises(BadInput) as caught:
        read_task(tmp_path / "own.toml")
    assert len(caught.value.problems) == 4


def test_models_fit_by_what_a_sample_and_its_answer_hold():
    assert fits(TINY["keyword_spotting"], signature((1, 49, 10, 1), (1, 12)))
    assert fits(TINY["keyword_spotting"], signature((1, 490), (1, 12)))
    assert fits(TINY["visual_wake_words"], signature((1, 3, 96, 96), (1, 1)))
    assert not fits(TINY["image_classification"], signature((1, 32, 32, 3), (1, 100)))


def test_anomaly_files_are_windows_of_five_frames_that_move_on_by_one(made):
    task = TINY["anomaly_detection"]
    samples = open_task_data(task, find_task_folder(task, made))
    (rows,) = samples.rows(0).values()
    assert rows.shape == (196, 640)
    stored = np.fromfile(made / "ad01" / samples.names[0], "<f4")
    np.testing.assert_array_equal(rows[3], stored[3 * 128 : 3 * 128 + 640])
    np.testing.assert_array_equal(rows[-1], stored[-640:])


def test_anomalies_are_judged_by_the_mean_auc_of_the_machines(made):
    result = run_suite(
        find_tasks("anomaly-detection"), made, [describe_model(made / "models" / "ad.onnx")], options=QUICK
    )
    (row,) = result.rows
    assert not row.problem
    parts = row.quality.parts
    assert [parts[f"id_0{n}"] for n in (1, 2, 4)] == [1.0, 1.0, 1.0]
    assert 0.2 < parts["id_03"] < 1.0
    assert row.quality.value == pytest.approx(np.mean([parts[f"id_0{n}"] for n in (1, 2, 3, 4)]))
    assert (row.quality.items, row.inferences) == (64, 64 * 196)
    assert row.quality.low < row.quality.value < row.quality.high
    assert row.p90_s > 0
    assert row.memory_bytes > 0


def test_the_suite_says_what_it_skipped_and_which_models_failed(made, tmp_path):
    (tmp_path / "torn.onnx").write_bytes(b"torn")
    models = [describe_model(made / "models" / name) for name in ("vww.onnx", "dlrm.onnx")]
    gone = dataclasses.replace(models[0], path=tmp_path / "torn.onnx", name="torn")
    result = run_suite(find_tasks("all"), made, [*models, gone], options=QUICK)
    rows = {(row.task, row.model): row for row in result.rows}
    assert set(rows) == {("visual_wake_words", "vww"), ("visual_wake_words", "torn"), ("dlrm", "dlrm")}
    good = rows["visual_wake_words", "vww"].quality
    assert (good.value, good.verdict, good.items) == (1.0, "met", 40)
    assert rows["visual_wake_words", "torn"].problem
    assert rows["dlrm", "dlrm"].quality.value > 0.8
    assert "no float32 model" in rows["dlrm", "dlrm"].notes[-1]
    assert sorted(line.split(":")[0] for line in result.skipped) == [
        "anomaly detection", "image classification", "keyword spotting"
    ]  # fmt: skip


def test_a_share_of_the_float_models_quality_is_a_floor(made):
    model = describe_model(made / "models" / "dlrm.onnx")
    models = [
        dataclasses.replace(model, precision="float32", name="float"),
        dataclasses.replace(model, precision="int8"),
    ]
    result = run_suite(find_tasks("dlrm"), made, models, options=dataclasses.replace(QUICK, limit=100))
    assert [row.quality.floor for row in result.rows] == [pytest.approx(0.99 * result.rows[0].quality.value)] * 2
    assert [row.quality.verdict for row in result.rows] == ["met", "met"]
    assert [(row.quality.items, row.offered) for row in result.rows] == [(100, 400)] * 2


def test_a_set_without_any_data_or_model_is_refused_with_what_was_looked_for(made, tmp_path):
    with pytest.raises(BadInput, match="no folder ic01 or mlperf_tiny_ic01"):
        run_suite(find_tasks("image-classification"), tmp_path, [], options=QUICK)
    with pytest.raises(BadInput, match="no such folder"):
        run_suite(find_tasks("tiny"), tmp_path / "absent", [], options=QUICK)
    with pytest.raises(BadInput, match="none takes and gives"):
        run_suite(find_tasks("visual-wake-words"), made, [describe_model(made / "models" / "ad.onnx")], options=QUICK)


@pytest.fixture
def vww(made, tmp_path):
    shutil.copytree(made / "vww01", tmp_path / "vww01")
    return tmp_path / "vww01"


def test_the_first_items_are_a_sample_in_an_order_of_their_own_and_evaluation_leaves_calibration_out(vww):
    task = TINY["visual_wake_words"]
    whole, few = open_task_data(task, vww), open_task_data(task, vww, limit=10)
    assert few.names == whole.names[:10] != tuple(sorted(whole.names))[:10]
    assert open_task_data(task, vww, part="evaluate").names == whole.names[8:]


def test_missing_and_cut_items_are_refused_by_name(vww):
    task = TINY["visual_wake_words"]
    (vww / "000000000003.bin").write_bytes(b"short")
    samples = open_task_data(task, vww)
    with pytest.raises(BadInput, match=r"000000000003\.bin: 5 bytes: visual wake words takes 27648"):
        samples.rows(samples.names.index("000000000003.bin"))
    (vww / "000000000003.bin").unlink()
    with pytest.raises(BadInput, match=r"1 of its 40 items are not in .*000000000003\.bin"):
        open_task_data(task, vww)


@pytest.mark.parametrize(
    "text", ["a.bin,2,2\n", "a.bin,2,-1\n", "a.bin,1\n", "a.bin,two,1\n", "\n", "a.bin,2,1,2560\n", "\xff\x00,2,1\n"]
)
def test_labels_that_are_none_are_refused_with_their_line(vww, text):
    (vww / "y_labels.csv").write_text(text, encoding="latin-1")
    with pytest.raises(BadInput, match=r"y_labels\.csv"):
        open_task_data(TINY["visual_wake_words"], vww)


def test_the_labels_of_another_task_are_refused(made, vww):
    text = (vww / "y_labels.csv").read_text().replace(", 2,", ", 12,")
    (vww / "y_labels.csv").write_text(text)
    result = run_suite(
        find_tasks("visual-wake-words"), vww.parent, [describe_model(made / "models" / "vww.onnx")], options=QUICK
    )
    assert "gives 2 classes" in result.rows[0].problem


def test_the_shorter_list_is_taken_where_only_its_items_are_there(made, tmp_path):
    task, folder = TINY["anomaly_detection"], tmp_path / "ad01"
    folder.mkdir()
    lines = (made / "ad01" / "y_labels.csv").read_text().splitlines()
    (folder / "y_labels.csv").write_text("\n".join(lines))
    (folder / "y_labels_alt.csv").write_text("\n".join(lines[:6]))
    for line in lines[:6]:
        shutil.copy(made / "ad01" / line.split(",")[0], folder)
    assert open_task_data(task, folder).offered == 6


def test_windows_that_do_not_fit_and_values_that_are_no_numbers_are_refused(made, tmp_path):
    task, folder = TINY["anomaly_detection"], tmp_path / "ad01"
    folder.mkdir()
    (folder / "a_id_01.bin").write_bytes(np.full(640, np.nan, "<f4").tobytes())
    for line, match in (
        ("a_id_01.bin,2,0,2560,512", "NaN"),
        ("a_id_01.bin,2,0,1280,512", "takes windows of 2560"),
        ("a_id_01.bin,2,0,2560,0", "whole values"),
    ):
        (folder / "y_labels.csv").write_text(line)
        with pytest.raises(BadInput, match=match):
            open_task_data(task, folder).rows(0)


def test_pixels_reach_int8_inputs_as_the_harness_feeds_them():
    raw = {"": np.random.default_rng(0).integers(0, 256, (4, 96, 96, 3), np.uint8)}
    task = TINY["visual_wake_words"]
    for scale, zero in ((1 / 255, -128), (1 / 127.5, -1), (1.0, -128)):
        feed = feed_of(task, signature((1, 96, 96, 3), (1, 2), "int8", scale=(scale,), zero_point=(zero,)), ())
        encoded, _ = feed.arrays(raw)
        np.testing.assert_array_equal(encoded["x"][:, 0], raw[""].astype(np.int16) - 128)
        assert bool(feed.note) == (zero == -1 or scale == 1.0)


def test_pixels_keep_their_contrast_where_calibration_saw_no_white_one():
    raw = {"": np.arange(256, dtype=np.uint8).repeat(108).reshape(1, 96, 96, 3)}
    narrow = signature((1, 96, 96, 3), (1, 2), "int8", scale=(0.89 / 255,), zero_point=(-128,))
    feed = feed_of(TINY["visual_wake_words"], narrow, ())
    encoded, _ = feed.arrays(raw)
    wanted = np.minimum(np.rint(raw[""] / 0.89), 255) - 128
    assert np.abs(encoded["x"][:, 0] - wanted).max() <= 1  # 1 where a half is rounded the other way
    assert feed.note.endswith("has 0 to 1: pixels beyond are cut off")


def test_features_reach_their_own_model_byte_by_byte_and_floats_as_real_values():
    task = TINY["keyword_spotting"]
    raw = {"": np.random.default_rng(0).integers(-128, 128, (3, 49, 10, 1), np.int16).astype(np.int8)}
    quantized = signature((1, 49, 10, 1), (1, 12), "int8", scale=(0.5847029089927673,), zero_point=(83,))
    np.testing.assert_array_equal(feed_of(task, quantized, ()).arrays(raw)[0]["x"][:, 0], raw[""])
    real, _ = feed_of(task, signature((1, 490), (1, 12)), ()).arrays(raw)
    np.testing.assert_allclose(real["x"][:, 0], (raw[""].reshape(3, -1) - 83.0) * 0.5847029089927673, rtol=1e-6)


def test_a_manifest_that_knows_its_preprocessing_is_followed_and_channels_move_first():
    task = TINY["image_classification"]
    raw = {"": np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)}
    source = (TensorInfo(name="x", shape=(1, 3, 32, 32), dtype="float32", layout="NCHW", mean=(127.5,), std=(127.5,)),)
    feed = feed_of(task, signature((1, 32, 32, 3), (1, 10)), source)
    source_like, _ = feed_of(task, Signature(name="m", inputs=source, outputs=()), source).arrays(raw)
    expected = (raw[""] - 127.5) / 127.5
    np.testing.assert_allclose(source_like["x"][:, 0], expected.transpose(0, 3, 1, 2), atol=1e-6)
    assert "manifest" in feed.note


def test_a_reconstruction_is_scored_by_its_mean_squared_error():
    task = TINY["anomaly_detection"]
    info = TensorInfo(name="y", shape=(1, 640), dtype="int8", scale=(0.5,), zero_point=(3,))
    scores = scores_of(task, np.full((2, 1, 640), 7, np.int8), info, np.zeros((2, 640)))
    np.testing.assert_allclose(scores, [4.0, 4.0])


def test_the_intervals_are_the_known_ones():
    assert wilson_interval(0.855, 200) == (pytest.approx(0.7995, abs=1e-4), pytest.approx(0.8971, abs=1e-4))
    assert wilson_interval(1.0, 10)[1] == pytest.approx(1.0)
    generator = np.random.default_rng(0)
    labels, scores = generator.integers(0, 2, 300), generator.normal(size=300).round(1)
    value, variance = auc_interval(labels, scores + labels)
    assert value == pytest.approx(auc(labels, (scores + labels)))
    # Against a constant, whose AUC has no spread, the paired interval is this one.
    paired = paired_difference("auc", labels, np.zeros(300), scores + labels)
    assert paired.high - paired.low == pytest.approx(2 * 1.959964 * variance**0.5)


def test_auc_of_a_single_class_is_refused():
    with pytest.raises(BadInput, match="one class only"):
        measure_quality(TINY["anomaly_detection"], ["id_01", "id_01"], np.array([0, 0]), np.array([1.0, 2.0]))


def test_the_published_nets_reach_their_published_quality(data):
    pytest.importorskip("ai_edge_litert")
    models = [
        describe_model(data / "models" / name)
        for name in (
            "mlperf_tiny_ic_resnet8/pretrainedResnet_quant.tflite",
            "mlperf_tiny_kws_dscnn/kws_ref_model.tflite",
        )
    ]
    result = run_suite(find_tasks("tiny"), data, models, options=QUICK)
    assert [(row.task, row.precision, row.quality.value, row.quality.items) for row in result.rows] == [
        ("image_classification", "int8", 0.85, 200),
        ("keyword_spotting", "int8", 0.902, 1000),
    ]
    assert [row.quality.verdict for row in result.rows] == ["met", "met"]
    assert all(row.flash_bytes < 100_000 for row in result.rows)
