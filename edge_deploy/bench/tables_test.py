"""Tables of some tens of megabytes go the way that tables of many gigabytes go, and are never held in memory."""

import os
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from converters.capture import is_large
from converters.contracts import CaptureRequest, LowerRequest
from converters.executorch.recommender_stream import stream_tables
from converters.executorch.recommender_tables import stack_tables
from converters.recommender.model import load
from converters.recommender.reference import run_reference
from converters.sources import dlrm_arrays
from converters.targets import tflite
from edge_deploy.api.convert import convert
from edge_deploy.api.request import convert_request
from edge_deploy.bench.tables_source import make_source
from edge_deploy.core import registry
from edge_deploy.core.digest import file_sha256
from edge_deploy.core.errors import BadInput
from edge_deploy.core.quant_spec import spec_for_recipe
from runtimes.residency import RUNS_BETWEEN_LOOKS
from runtimes.session import open_session

ROWS, DIM = (700_000, 30, 12_345), 16  # 45 MB of float
HELD = 24 << 20  # less than the largest table has


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("tables")


@pytest.fixture(scope="module")
def source(home):
    return make_source(home, "safetensors", ROWS, DIM)


@pytest.fixture(scope="module")
def captured(home, source):
    (home / "captured").mkdir()
    return dlrm_arrays.capture(CaptureRequest(source=str(source)), home / "captured")


def feeds(samples=20):
    random = np.random.default_rng(1)
    ids = np.stack([random.integers(0, rows, samples) for rows in ROWS], 1)
    ids[0], ids[1] = 0, np.array(ROWS) - 1
    return {"dense": random.normal(size=(samples, 13)).astype(np.float32), "sparse": ids}


def answers(session, given):
    dtypes = {info.name: info.dtype for info in session.signature.inputs}
    return np.stack(
        [
            next(iter(session.run({k: v[i : i + 1].astype(dtypes[k]) for k, v in given.items()}).values()))[0]
            for i in range(len(given["dense"]))
        ]
    )


@pytest.fixture
def held():
    """The most that NumPy and Python have held since, as tracemalloc counts it: mapped files are not in it."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


def test_the_memory_bound_would_notice_a_table(home, source, held):
    from converters.loading.weight_index import index_weights
    from converters.recommender.rows import map_array

    np.array(map_array(index_weights(source)["tables.0.weight"]))
    assert held() > HELD


@pytest.mark.parametrize("recipe", ["int4", "int8", "float32"])
@pytest.mark.parametrize("scale", ["row", "table"])
def test_tflite_is_written_without_holding_a_table(tmp_path, captured, held, recipe, scale):
    spec = spec_for_recipe(recipe, table_scale=scale)
    lowered = tflite.lower(LowerRequest(captured=captured, spec=spec, folder=tmp_path, resume=tmp_path / "staging"))
    assert held() < HELD
    (entry,) = lowered.files
    assert entry.sha256 == file_sha256(tmp_path / "model.tflite")
    model, arrays = load(captured.recommender)
    session = open_session(tmp_path / "model.tflite", trusted=True)
    given = feeds()
    wanted = run_reference(model, arrays, given, batch=20)
    worst = {"float32": 1e-5, "int8": 0.02, "int4": 0.05}[recipe]
    np.testing.assert_allclose(answers(session, given), wanted, atol=worst)


@pytest.mark.parametrize("bits", [4, 8, 32])
@pytest.mark.parametrize("scale", ["row", "table"])
@pytest.mark.parametrize("dim", [1, 5, 16])
def test_streamed_tables_for_executorch_are_those_stacked_in_memory(bits, scale, dim):
    random = np.random.default_rng(dim)
    tables = [random.normal(0, 0.1, (rows, dim)).astype(np.float32) for rows in (3, 40_000, 7)]
    tables[2][3] = 0
    whole = stack_tables(tables, bits=bits, scale=scale)
    parts = stream_tables(tables, names=["a", "b", "c"], bits=bits, scale=scale)
    assert (parts.stacked.stored.shape, parts.stacked.offsets) == (whole.stored.shape, whole.offsets)
    rows = b"".join(np.ascontiguousarray(part.make()).tobytes() for part in parts.rows)
    assert rows == whole.stored.tobytes() and sum(part.size for part in parts.rows) == len(rows)
    if bits != 32 and scale == "row":
        made = [part.make() for part in parts.scales]
        scales = b"".join(np.ascontiguousarray(each).tobytes() for each in made)
        assert scales == whole.scales.tobytes() and parts.stacked.scales.dtype == whole.scales.dtype
    else:
        np.testing.assert_array_equal(parts.stacked.scales, whole.scales)


def test_tables_with_nan_are_named(tmp_path):
    tables = [np.zeros((4, 2), np.float32), np.full((4, 2), np.nan, np.float32)]
    with pytest.raises(BadInput, match="table second"):
        stream_tables(tables, names=["first", "second"], bits=4, scale="row")


def test_executorch_reads_the_tables_from_the_ptd_where_they_lie(tmp_path, captured, monkeypatch):
    pytest.importorskip("executorch.exir")
    from converters.executorch import recommender
    from converters.targets import executorch

    peaks = {}

    def watched(name):
        whole = getattr(recommender, name)

        def call(*args, **kwargs):
            tracemalloc.start()
            try:
                return whole(*args, **kwargs)
            finally:
                peaks[name] = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()

        monkeypatch.setattr(recommender, name, call)

    for name in ("stream_tables", "write_tables", "check_half_a_step"):
        watched(name)
    spec = spec_for_recipe("int4", table_scale="table")
    lowered = executorch.lower(LowerRequest(captured=captured, spec=spec, folder=tmp_path, resume=tmp_path / "staging"))
    assert len(peaks) == 3 and max(peaks.values()) < HELD
    sizes = {entry.path: entry.bytes for entry in lowered.files}
    rows = sum(ROWS) * DIM // 2
    assert rows <= sizes["model.ptd"] < rows + 4096 and sizes["model.pte"] < 1 << 20
    assert all(entry.sha256 == file_sha256(tmp_path / entry.path) for entry in lowered.files)
    model, arrays = load(captured.recommender)
    given = feeds()
    session = registry.load("runtimes.backends", "executorch").open_model(
        tmp_path / "model.pte",
        data_files=(tmp_path / "model.ptd",),
        known=lowered.signatures,
        signature=None,
        threads=1,
        kernels="default",
    )
    found = answers(session, given)
    np.testing.assert_allclose(found, run_reference(model, arrays, given, batch=20), atol=0.05)
    status = Path("/proc/self/status").read_text() if sys.platform.startswith("linux") else "VmLck: 0 kB"
    (locked,) = (line for line in status.splitlines() if line.startswith("VmLck"))
    assert int(locked.split()[1]) == 0


def test_a_module_leaves_its_tables_in_the_checkpoint(tmp_path, home, source, captured):
    torch = pytest.importorskip("torch")
    from converters.loading.torch_in_place import module_in_place
    from converters.sources import torch_module

    checkpoint = make_source(home, "torch", ROWS, DIM)
    (tmp_path / "streamed_net.py").write_text(
        "from edge_deploy.zoo.dlrm import DlrmConfig, build\n"
        "def make():\n"
        f"    return build(DlrmConfig(dense_features=13, table_rows={ROWS}, dim={DIM}, bottom=(512, 256, 64),\n"
        "                            top=(512, 256)))\n"
    )
    found = module_in_place("streamed_net:make", (str(tmp_path),), checkpoint, tmp_path / "scratch")
    weight = found.module.tables[0].weight
    assert weight.data_ptr() == found.maps["tables.0.weight"].__array_interface__["data"][0]
    given = feeds()
    request = convert_request(
        "streamed_net:make",
        to=["tflite"],
        precision=["int4"],
        out=tmp_path / "out",
        weights=checkpoint,
        inputs=["dense:1,13", f"sparse:1,{len(ROWS)}:int64"],
        search_path=[str(tmp_path)],
    ).capture
    assert is_large(request)
    (tmp_path / "captured").mkdir()
    streamed = torch_module.capture(request, tmp_path / "captured")
    assert streamed.is_streamed and streamed.program is None
    model, arrays = load(streamed.recommender)
    assert arrays[model.tables[0].weight].filename == checkpoint.absolute()
    with torch.no_grad():
        wanted = found.module(*(torch.from_numpy(given[name]) for name in ("dense", "sparse"))).numpy()
    np.testing.assert_allclose(run_reference(model, arrays, given, batch=20), wanted, atol=1e-5)
    np.testing.assert_allclose(run_reference(*load(captured.recommender), given, batch=20), wanted, atol=1e-5)
    total = sum(file.stat().st_size for file in (tmp_path / "captured").rglob("*") if file.is_file())
    assert total < 8 << 20


KILLED = """
import json, os, signal, sys
from pathlib import Path
from converters.contracts import Captured, LowerRequest
from converters.recommender import resumable, rows
from converters.targets import tflite
from edge_deploy.core.quant_spec import spec_for_recipe
from edge_deploy.core.serde import read_json
resumable.JOURNAL_BYTES = 1 << 20
read, folder = rows.rows_of, Path(sys.argv[1])
journal = folder / "staging" / "model.tflite.journal"
def noted():
    lines = journal.read_text().splitlines(keepends=True) if journal.is_file() else []
    return max((json.loads(line)["bytes"] for line in lines[1:] if line.endswith("\\n")), default=0)
def rows_of(table, start, stop):
    if noted() > 5 << 20:  # the scales, which come first and do not pass here, and a part of the codes
        os.kill(os.getpid(), signal.SIGKILL)
    return read(table, start, stop)
rows.rows_of = rows_of
captured = read_json(Captured, folder / "captured.json")
spec = spec_for_recipe("int4", table_scale="row")
tflite.lower(LowerRequest(captured=captured, spec=spec, folder=folder / "first", resume=folder / "staging"))
"""


def test_a_killed_conversion_is_resumed_and_gives_the_same_file(tmp_path, captured, monkeypatch):
    from converters.recommender import resumable
    from edge_deploy.core.serde import write_json

    write_json(captured, tmp_path / "captured.json")
    (tmp_path / "first").mkdir()
    ended = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert not list((tmp_path / "first").iterdir())
    kept = []
    monkeypatch.setattr(resumable, "PROGRESS_S", 0.0)
    monkeypatch.setattr(resumable, "_tell", lambda folder, name, done, total, own: kept.append(own))
    spec = spec_for_recipe("int4", table_scale="row")
    for name, resume in (("again", tmp_path / "staging"), ("fresh", None)):
        (tmp_path / name).mkdir()
        tflite.lower(LowerRequest(captured=captured, spec=spec, folder=tmp_path / name, resume=resume))
    assert min(kept) > 5 << 20
    assert file_sha256(tmp_path / "again" / "model.tflite") == file_sha256(tmp_path / "fresh" / "model.tflite")


def test_a_whole_conversion_verifies_and_leaves_nothing_beside_it(tmp_path, source):
    said = []
    request = convert_request(str(source), to=["tflite"], precision=["int4"], table_scale="table", out=tmp_path / "out")
    conversion = convert(request, progress=said.append)
    (artifact,) = conversion.artifacts
    assert artifact.kind == "recommender" and artifact.verification.comparisons[0].snr_db > 20
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    session = open_session(tmp_path / "out" / "tflite-int4")
    assert session.signature.inputs[1].id_bounds == ROWS


def test_an_artifact_with_tables_beside_its_program_is_split_and_they_stay_beside(tmp_path, source):
    pytest.importorskip("executorch.exir")
    from converters.split import choose_cuts, open_parent, split

    convert(convert_request(str(source), to=["executorch"], precision=["int4"], out=tmp_path / "out"))
    parent = open_parent(tmp_path / "out" / "executorch-int4")
    cuts, refused = choose_cuts(parent, every=True)
    first = next(cut for cut in cuts if "tables" in cut.edge_layers)
    (each,) = split(parent, [first], tmp_path / "halves", refused=refused).cuts
    assert each.bit_identical
    assert (each.head / "model.ptd").stat().st_size > 6 << 20 > (each.head / "model.pte").stat().st_size
    assert not (each.tail / "model.ptd").exists()


def test_pages_of_a_large_table_are_given_back(tmp_path, monkeypatch, captured):
    if not sys.platform.startswith("linux"):
        pytest.skip("needs /proc")
    from runtimes import residency

    spec = spec_for_recipe("float32")
    tflite.lower(LowerRequest(captured=captured, spec=spec, folder=tmp_path))
    path = tmp_path / "model.tflite"
    monkeypatch.setattr(residency, "LEAST_FILE_BYTES", 1 << 20)
    monkeypatch.setattr(residency, "MOST_GROWTH_BYTES", 4 << 20)
    session = open_session(path, trusted=True)
    if session._residency is None or not session._residency._mapped_bytes():
        pytest.skip("this system does not tell what is resident")
    random = np.random.default_rng(0)
    name = os.path.realpath(path)
    most = 0
    for number in range(30 * RUNS_BETWEEN_LOOKS):
        ids = (random.random((1, len(ROWS))) * ROWS).astype(np.int32)
        session.run({"dense": np.zeros((1, 13), np.float32), "sparse": ids})
        if number % RUNS_BETWEEN_LOOKS == RUNS_BETWEEN_LOOKS - 1:
            most = max(most, resident(name))
    session.close()
    assert most < 12 << 20, "45 MB of table would stay without it"


def resident(name):
    """Resident bytes of a mapped file."""
    found, counts = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ")[0]:
            counts = line.rstrip().endswith(name)
        elif counts and line.startswith("Rss:"):
            found += int(line.split()[1]) * 1024
    return found
