import hashlib
import io
import tarfile
import zipfile

import numpy as np
import pytest

from edge_deploy.core.dataset import check_samples, dataset_digest, refuse_overlap
from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo
from edge_deploy.zoo.datasets import open_dataset
from edge_deploy.zoo.description import BUILT_IN, read_description

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (10, 4, 6, 3)).astype(np.uint8)


def _input(*shape, dtype="float32", **more):
    return TensorInfo(name="pixels", shape=(1, *shape), dtype=dtype, **more)


NHWC = (_input(4, 6, 3),)


@pytest.fixture
def raw(tmp_path):
    """Ten raw images in a folder, a csv with labels 0 to 9, and the head of a description."""
    (tmp_path / "images").mkdir()
    for index, image in enumerate(PIXELS):
        (tmp_path / "images" / f"{index}.bin").write_bytes(image.tobytes())
    lines = [f"{index}.bin;skipped;{index}" for index in reversed(range(10))]
    (tmp_path / "labels.csv").write_text("file;note;class\n" + "\n".join(lines))
    return tmp_path


ITEMS = '[items]\npath = "images"\ndecode = "raw"\nshape = [4, 6, 3]\n'
LABELS = '[labels]\npath = "labels.csv"\ndelimiter = ";"\nheader = true\nkey = "file"\nlabel = "class"\n'


def _open(folder, text, inputs=NHWC, **options):
    (folder / "data.toml").write_text(text)
    return open_dataset(folder / "data.toml", inputs=inputs, **options)


def _pixels(dataset):
    return {int(sample.label): sample.inputs["pixels"] for sample in dataset}


def test_raw_items_of_a_folder_meet_their_labels(raw):
    found = _pixels(_open(raw, ITEMS + LABELS))
    assert sorted(found) == list(range(10))
    assert all(np.array_equal(found[label], PIXELS[label]) for label in found)
    assert found[0].dtype == np.float32


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_archives_hold_the_same_as_folders(raw, kind):
    folder = _open(raw, ITEMS + LABELS)
    archive = raw / f"images.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as file:
            for path in sorted((raw / "images").iterdir()):
                file.write(path, f"inner/{path.name}")
    else:
        with tarfile.open(archive, "w:gz" if kind.endswith("gz") else "w") as file:
            file.add(raw / "images", "inner")
    packed = _open(raw, ITEMS.replace('"images"', f'"images.{kind}"') + LABELS)
    assert dataset_digest(packed) == dataset_digest(folder)
    assert [sample.label for sample in packed] == [sample.label for sample in folder]


def test_the_split_follows_the_sha256_of_the_items(raw):
    order = sorted(range(10), key=lambda index: hashlib.sha256(PIXELS[index].tobytes()).hexdigest())
    parts = {}
    for part in ("calibrate", "evaluate", "all"):
        dataset = _open(raw, ITEMS + LABELS + f'[split]\npart = "{part}"\nfraction = 0.3\n')
        parts[part] = [int(sample.label) for sample in dataset]
    assert parts == {"calibrate": order[:3], "evaluate": order[3:], "all": order}


def test_the_parts_of_a_split_do_not_overlap(raw):
    first = _open(raw, ITEMS + '[split]\npart = "calibrate"\n')
    rest = _open(raw, ITEMS + '[split]\npart = "evaluate"\n')
    refuse_overlap(first, rest)
    with pytest.raises(BadInput, match="2 of 10 evaluation samples"):
        refuse_overlap(first, _open(raw, ITEMS))


def test_copies_of_an_item_stay_on_one_side_of_the_split(raw):
    for index in range(1, 9):
        (raw / "images" / f"{index}.bin").write_bytes(PIXELS[0].tobytes())
    first = _open(raw, ITEMS + '[split]\npart = "calibrate"\nfraction = 0.5\n')
    rest = _open(raw, ITEMS + '[split]\npart = "evaluate"\nfraction = 0.5\n')
    assert len(first) + len(rest) == 10
    refuse_overlap(first, rest)


def test_every_iteration_gives_the_same(raw):
    dataset = _open(raw, ITEMS + LABELS)
    first, second = ([(s.label, s.inputs["pixels"].tobytes()) for s in dataset] for _ in range(2))
    assert first == second and len(first) == len(dataset)


def test_limits_take_the_first_of_the_order(raw):
    whole = [sample.label for sample in _open(raw, ITEMS + LABELS)]
    assert [sample.label for sample in _open(raw, ITEMS + LABELS, limit=4)] == whole[:4]
    assert len(_open(raw, "limit = 3\n" + ITEMS + LABELS, limit=7)) == 3


def test_values_are_normalised_per_channel(raw):
    text = ITEMS + LABELS + "[preprocess]\ndivide = 255.0\nmean = [0.1, 0.2, 0.3]\nstd = [0.5, 0.4, 0.3]\n"
    expected = (PIXELS / 255 - [0.1, 0.2, 0.3]) / [0.5, 0.4, 0.3]
    found = _pixels(_open(raw, text))
    assert all(np.allclose(found[label], expected[label], atol=1e-6) for label in found)


def test_quantized_values_become_real(raw):
    text = ITEMS + LABELS + "[preprocess]\nzero = 83.0\nscale = 0.5\n"
    assert np.allclose(_pixels(_open(raw, text))[4], (PIXELS[4].astype(float) - 83) * 0.5)


@pytest.mark.parametrize("layout", ["NCHW", None])
def test_the_layout_is_the_models(raw, layout):
    found = _pixels(_open(raw, ITEMS + LABELS, (_input(3, 4, 6, layout=layout),)))
    assert np.array_equal(found[2], PIXELS[2].transpose(2, 0, 1))


def test_flattened_items_suit_a_model_of_rows(raw):
    found = _pixels(_open(raw, ITEMS + LABELS + "[preprocess]\nflatten = true\n", (_input(72),)))
    assert np.array_equal(found[2], PIXELS[2].reshape(-1))


def test_integer_inputs_get_integers_that_fit(raw):
    found = _pixels(_open(raw, ITEMS + LABELS, (_input(4, 6, 3, dtype="uint8"),)))
    assert found[1].dtype == np.uint8 and np.array_equal(found[1], PIXELS[1])
    with pytest.raises(BadInput, match="do not fit int8"):
        list(_open(raw, ITEMS + LABELS, (_input(4, 6, 3, dtype="int8"),)))


def test_images_are_resized_by_the_shorter_side_and_cropped_from_the_middle(tmp_path):
    image = pytest.importorskip("PIL.Image")
    picture = image.fromarray(np.tile(np.arange(40, dtype=np.uint8)[None, :, None], (20, 1, 3)))
    (tmp_path / "images").mkdir()
    picture.save(tmp_path / "images" / "ramp.png")
    text = '[items]\npath = "images"\n[preprocess]\nresize = 10\ncrop = [8, 12]\n'
    sample = next(iter(_open(tmp_path, text, (_input(8, 12, 3),))))
    row = sample.inputs["pixels"][0, :, 0]
    assert np.allclose(row, np.asarray(picture.resize((20, 10), image.Resampling.BILINEAR))[0, 4:16, 0])


def test_a_gray_model_gets_gray_images(tmp_path):
    image = pytest.importorskip("PIL.Image")
    (tmp_path / "images").mkdir()
    image.fromarray(PIXELS[0]).save(tmp_path / "images" / "colour.png")
    sample = next(iter(_open(tmp_path, '[items]\npath = "images"\n', (_input(4, 6, 1),))))
    assert np.array_equal(sample.inputs["pixels"][..., 0], np.asarray(image.fromarray(PIXELS[0]).convert("L")))


def test_rows_of_an_image_are_items_and_labels_are_numbers_of_a_text(tmp_path):
    image = pytest.importorskip("PIL.Image")
    image.fromarray(PIXELS.reshape(10, 24, 3)).save(tmp_path / "rows.png")
    (tmp_path / "labels.js").write_text("var labels=[9, 9, " + ", ".join(map(str, range(10))) + "];")
    text = ITEMS.replace('"images"', '"rows.png"').replace('"raw"', '"rows"')
    found = _pixels(_open(tmp_path, text + '[labels]\npath = "labels.js"\nformat = "numbers"\noffset = 2\n'))
    assert all(np.array_equal(found[label], PIXELS[label]) for label in range(10))


def test_npy_items_and_labels_in_words(tmp_path):
    with zipfile.ZipFile(tmp_path / "arrays.zip", "w") as file:
        for index in range(2):
            buffer = io.BytesIO()
            np.save(buffer, PIXELS[index])
            file.writestr(f"{index}.npy", buffer.getvalue())
    (tmp_path / "labels.csv").write_text("1.npy,dog\n0.npy,cat\n")
    labels = '[labels]\npath = "labels.csv"\nkey = 0\nlabel = 1\nclasses = ["cat", "dog"]\n'
    found = _pixels(_open(tmp_path, '[items]\npath = "arrays.zip"\ndecode = "npy"\n' + labels))
    assert np.array_equal(found[1], PIXELS[1])


def test_environment_variables_stand_in_paths(raw, monkeypatch):
    text = ITEMS.replace('"images"', '"${HERE}/images"')
    with pytest.raises(BadInput, match="environment variable HERE is not set"):
        _open(raw, text)
    monkeypatch.setenv("HERE", str(raw))
    assert len(_open(raw, text)) == 10


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[itmes]\npath = 'x'\n", r"data.toml.itmes: unknown key; did you mean items\?"),
        (ITEMS + "[preprocess]\nmaen = [0.5]\n", r"preprocess.maen: unknown key; did you mean mean\?"),
        (ITEMS.replace("raw", "jpeg"), r"items.decode: 'jpeg': must be one of 'image', 'raw', 'rows', 'npy'"),
        (ITEMS.replace("shape = [4, 6, 3]", ""), r"items.shape = \[\]: raw items need their shape"),
        (ITEMS.replace("[4, 6, 3]", "[4, 6, 4]"), r"\d.bin: 72 bytes: uint8 \[4, 6, 4\] has 96"),
        (ITEMS + "[preprocess]\nresize = 8\n", r"preprocess.resize: only images are resized"),
        (ITEMS + "[preprocess]\ncrop = 5\n", r"too small for preprocess.crop = 5 x 5"),
        (ITEMS + "[preprocess]\ncrop = 4\n", r"shape \(4, 4, 3\) after preprocessing: the model's input pixels takes"),
        (ITEMS + "[preprocess]\nmean = [0.5, 0.5]\n", r"preprocess.mean has 2 values for an item of shape \(4, 6, 3\)"),
        (ITEMS + "[split]\nfraction = 1.5\n", r"split.fraction = 1.5: must lie between 0 and 1"),
        (ITEMS + 'pattern = "*.jpg"\n', r"holds no item that fits '\*.jpg'"),
        (ITEMS.replace("images", "nowhere"), r"nowhere: no such file or folder"),
        (ITEMS + LABELS.replace("labels.csv", "none.csv"), r"none.csv: no such file"),
        (
            ITEMS + LABELS.replace('"class"', '"klass"'),
            r"labels.label = 'klass': no such column; it has file, note, class",
        ),
        (ITEMS + LABELS.replace('"class"', '"note"'), r"line 2: label 'skipped': must be a number"),
        (ITEMS + LABELS.replace('"file"', '"note"'), r"10 of 10 items have no label, e.g. 0.bin"),
        ("[items\n", r"is not TOML"),
    ],
)
def test_wrong_descriptions_say_what_is_right(raw, text, message):
    with pytest.raises(BadInput, match=message):
        list(_open(raw, text))


def test_labels_in_order_must_be_as_many_as_items(raw):
    (raw / "labels.csv").write_text("\n".join(f"x,{index}" for index in range(9)))
    with pytest.raises(BadInput, match="9 labels for 10 items"):
        _open(raw, ITEMS + '[labels]\npath = "labels.csv"\n')


def test_damaged_archives_and_images_are_named(raw):
    with tarfile.open(raw / "cut.tar.gz", "w:gz") as file:
        file.add(raw / "images", "inner")
    whole = (raw / "cut.tar.gz").read_bytes()
    (raw / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInput, match=r"cut\.tar\.gz: cannot be read"):
        _open(raw, ITEMS.replace('"images"', '"cut.tar.gz"'))
    pytest.importorskip("PIL.Image")
    with pytest.raises(BadInput, match=r"\d.bin: is no readable image"):
        list(_open(raw, '[items]\npath = "images"\n'))


def test_a_description_serves_one_input_only(raw):
    with pytest.raises(BadInput, match="describes one input, the model has pixels, other"):
        _open(raw, ITEMS, (*NHWC, TensorInfo(name="other", shape=(1, 2), dtype="float32")))


TWO = (TensorInfo(name="dense", shape=(-1, 3), dtype="float32"), TensorInfo(name="ids", shape=(-1, 2), dtype="int32"))
ARRAYS = {
    "dense": RNG.normal(size=(5, 3)).astype(np.float32),
    "ids": np.arange(10).reshape(5, 2),
    "y": np.arange(5) % 2,
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "compressed"])
def test_npz_arrays_go_to_inputs_by_name(tmp_path, save):
    save(tmp_path / "data.npz", **ARRAYS)
    dataset = open_dataset(tmp_path / "data.npz", inputs=TWO)
    check_samples(dataset, TWO)
    samples = list(dataset)
    assert [sample.label for sample in samples] == [0, 1, 0, 1, 0]
    assert all(np.array_equal(samples[3].inputs[name], ARRAYS[name][3]) for name in ("dense", "ids"))
    assert len(open_dataset(tmp_path / "data.npz", inputs=TWO, limit=2)) == 2


def test_stored_arrays_are_mapped_not_read(tmp_path):
    np.savez(tmp_path / "data.npz", x=PIXELS, other=1)
    with pytest.raises(BadInput, match="array 'other': unknown"):
        open_dataset(tmp_path / "data.npz", inputs=NHWC)
    np.savez(tmp_path / "data.npz", x=np.asfortranarray(PIXELS))
    dataset = open_dataset(tmp_path / "data.npz", inputs=NHWC)
    assert isinstance(dataset.arrays["pixels"], np.memmap)
    assert np.array_equal([sample.inputs["pixels"] for sample in dataset], PIXELS)


def test_npy_is_for_a_single_input(tmp_path):
    np.save(tmp_path / "data.npy", PIXELS)
    samples = list(open_dataset(tmp_path / "data.npy", inputs=NHWC))
    assert np.array_equal(samples[9].inputs["pixels"], PIXELS[9]) and samples[9].label is None
    with pytest.raises(BadInput, match=r"one array for 2 inputs; give an \.npz with arrays dense, ids"):
        open_dataset(tmp_path / "data.npy", inputs=TWO)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": None}, "array 'ids' is missing; found dense"),
        ({"dense": None, "densee": ARRAYS["dense"]}, r"array 'densee': unknown; did you mean dense\?"),
        ({"dense": ARRAYS["dense"][:, :2]}, r"array 'dense' has shape \(5, 2\): must be \(samples, 3\)"),
        ({"dense": ARRAYS["dense"][:4]}, "differ in their number of samples .dense: 4, ids: 5, labels y: 5"),
        ({"y": np.arange(4)}, "differ in their number of samples"),
        ({"y": np.zeros((5, 2))}, "must be one number for each sample"),
        ({"dense": np.array([["a"] * 3] * 5)}, "must be numbers for float32"),
        ({"dense": np.array([[{}] * 3] * 5)}, "is no readable .npz file"),
        ({"dense": np.zeros((0, 3)), "ids": np.zeros((0, 2)), "y": np.zeros(0)}, "holds no sample"),
    ],
)
def test_wrong_arrays_say_what_is_right(tmp_path, changes, message):
    arrays = {name: value for name, value in {**ARRAYS, **changes}.items() if value is not None}
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(BadInput, match=message):
        open_dataset(tmp_path / "data.npz", inputs=TWO)


def test_damaged_and_foreign_files_are_refused(tmp_path):
    np.savez(tmp_path / "data.npz", **ARRAYS)
    whole = (tmp_path / "data.npz").read_bytes()
    for size in range(0, len(whole), 37):
        (tmp_path / "cut.npz").write_bytes(whole[:size])
        with pytest.raises(BadInput, match=r"is no readable \.npz file"):
            open_dataset(tmp_path / "cut.npz", inputs=TWO)
    (tmp_path / "data.txt").write_text("hello")
    with pytest.raises(BadInput, match=r"\.txt: data sets are .npz or .npy files, or .toml descriptions"):
        open_dataset(tmp_path / "data.txt", inputs=TWO)
    with pytest.raises(BadInput, match="no such file"):
        open_dataset(tmp_path / "none.npz", inputs=TWO)
    (tmp_path / "data.npy").write_bytes(b"\x93NUMPY\x01\x00nonsense")
    with pytest.raises(BadInput, match=r"is no readable \.npy file"):
        open_dataset(tmp_path / "data.npy", inputs=NHWC)


@pytest.mark.parametrize("path", sorted(BUILT_IN.glob("*.toml")), ids=lambda path: path.stem)
def test_the_built_in_descriptions_are_valid(path):
    assert read_description(path).items.path


COUNTS = {
    "ic01": (200, (32, 32, 3)),
    "ic01_normalised": (200, (3, 32, 32)),
    "cifar10_train4k": (4000, (32, 32, 3)),
    "cifar10_train4k_normalised": (4000, (3, 32, 32)),
    "imagenet_sample_calibrate": (100, (224, 224, 3)),
    "imagenet_sample_evaluate": (400, (224, 224, 3)),
    "kws01_calibrate": (200, (49, 10, 1)),
    "kws01_evaluate": (800, (49, 10, 1)),
    "mnist_calibrate": (600, (28, 28, 1)),
    "mnist_evaluate": (2400, (28, 28, 1)),
    "mnist_train12k": (12000, (28, 28, 1)),
}


@pytest.mark.needs_data
@pytest.mark.parametrize("name", COUNTS)
def test_the_built_in_descriptions_open(data, monkeypatch, name):
    pytest.importorskip("PIL.Image")
    monkeypatch.setenv("EDGE_DEPLOY_DATA", str(data))
    count, shape = COUNTS[name]
    inputs = (_input(*shape),)
    dataset = open_dataset(BUILT_IN / f"{name}.toml", inputs=inputs)
    assert len(dataset) == count
    check_samples(dataset, inputs, limit=20)


@pytest.mark.needs_data
def test_a_published_net_reaches_its_accuracy_on_ic01(data, monkeypatch):
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    monkeypatch.setenv("EDGE_DEPLOY_DATA", str(data))
    path = data / "models" / "mlperf_tiny_ic_resnet8" / "pretrainedResnet.tflite"
    lite = interpreter.Interpreter(str(path), num_threads=1)
    lite.allocate_tensors()
    right = []
    for sample in open_dataset(BUILT_IN / "ic01.toml", inputs=(_input(32, 32, 3),)):
        lite.set_tensor(lite.get_input_details()[0]["index"], sample.inputs["pixels"][None])
        lite.invoke()
        right.append(lite.get_tensor(lite.get_output_details()[0]["index"]).argmax() == sample.label)
    assert np.mean(right) == pytest.approx(0.855)
