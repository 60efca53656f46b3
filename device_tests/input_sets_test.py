import numpy as np
import pytest

from device_tests.input_sets import npz_input_sets, random_input_sets, unbounded_ids
from edge_deploy.core.artifact import Signature
from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo


def signature(*inputs):
    return Signature(name="main", inputs=inputs, outputs=())


IMAGE = TensorInfo(name="image", shape=(2, 4, 4, 3), dtype="float32", layout="NHWC")
IDS = TensorInfo(name="ids", shape=(2, 3), dtype="int32", id_bounds=(5, 1, 1000))


def test_random_ids_stay_within_the_table_of_their_column_and_reach_its_ends():
    sets = random_input_sets(signature(IDS), seed=0)
    ids = np.concatenate([item["ids"] for item in sets])
    assert ids.dtype == np.int32
    assert (ids >= 0).all()
    assert (ids < np.array(IDS.id_bounds)).all()
    assert set(ids[:, 0]) == set(range(5))
    assert ids[:, 2].max() > 900


def test_the_seed_decides_the_inputs():
    same = [random_input_sets(signature(IMAGE, IDS), seed=3) for _ in range(2)]
    assert all((a[name] == b[name]).all() for a, b in zip(*same, strict=True) for name in a)
    assert (random_input_sets(signature(IMAGE), seed=4)[0]["image"] != same[0][0]["image"]).any()


def test_quantized_inputs_cover_their_type_and_unknown_integers_are_zeros_and_named():
    quantized = TensorInfo(name="q", shape=(1, 500), dtype="int8", scale=(0.1,), zero_point=(0,))
    offsets = TensorInfo(name="offsets", shape=(1, 4), dtype="int64")
    (first, *_) = random_input_sets(signature(quantized, offsets), seed=0)
    assert first["q"].min() < -120
    assert first["q"].max() > 120
    assert not first["offsets"].any()
    assert unbounded_ids(signature(quantized, offsets, IDS, IMAGE)) == ("offsets",)


def test_a_dynamic_batch_is_one_and_other_dynamic_dimensions_are_refused():
    batch = TensorInfo(name="x", shape=(-1, 3), dtype="float32")
    assert random_input_sets(signature(batch), seed=0)[0]["x"].shape == (1, 3)
    with pytest.raises(BadInput, match=r"input x: shape .* dynamic"):
        random_input_sets(signature(TensorInfo(name="x", shape=(1, -1), dtype="float32")), seed=0)


def test_large_inputs_are_not_multiplied():
    large = TensorInfo(name="x", shape=(1, 8_000_000), dtype="float32")
    assert len(random_input_sets(signature(large), seed=0)) == 2


def test_samples_of_a_file_are_batched_and_encoded_as_the_artifact_takes_them(tmp_path):
    source = TensorInfo(name="image", shape=(-1, 3, 4, 4), dtype="float32", layout="NCHW")
    images = np.arange(5 * 48, dtype=np.float32).reshape(5, 3, 4, 4)
    np.savez(tmp_path / "x.npz", x=images)
    sets = npz_input_sets(tmp_path / "x.npz", signature(IMAGE), (source,))
    assert len(sets) == 2
    np.testing.assert_array_equal(sets[1]["image"], images[2:4].transpose(0, 2, 3, 1))


def test_files_that_do_not_fit_are_refused_with_what_was_found(tmp_path):
    np.savez(tmp_path / "x.npz", other=np.zeros((5, 4, 4, 3)), ids=np.zeros((1, 3), np.int32))
    (tmp_path / "y.npz").write_text("no zip")
    np.savez(tmp_path / "z.npz", image=np.zeros((5, 4, 3)))
    with pytest.raises(BadInput, match="array 'image' is missing; found other, ids"):
        npz_input_sets(tmp_path / "x.npz", signature(IMAGE, IDS))
    with pytest.raises(BadInput, match="not an npz"):
        npz_input_sets(tmp_path / "y.npz", signature(IMAGE))
    with pytest.raises(BadInput, match=r"samples of shape \(4, 3\)"):
        npz_input_sets(tmp_path / "z.npz", signature(IMAGE))
    with pytest.raises(BadInput, match="holds 1 samples: the batch is 2"):
        npz_input_sets(tmp_path / "x.npz", signature(IDS))
