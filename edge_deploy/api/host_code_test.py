"""Generated hosts compile against the runtimes' wheels and answer as the Python session does, bit for bit."""

from __future__ import annotations

import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("executorch")
pytest.importorskip("ai_edge_litert")

from edge_deploy.api.convert import convert  # noqa: E402
from edge_deploy.api.host_code import HOST  # noqa: E402
from edge_deploy.api.request import convert_request  # noqa: E402
from edge_deploy.core.features import (  # noqa: E402
    Categorical,
    Dense,
    FeatureSpec,
    GoldenRow,
    HashedIds,
    Vocabulary,
    encode_rows,
    write_features,
)
from edge_deploy.zoo import dlrm  # noqa: E402
from runtimes.runners.libraries import runtime_libraries  # noqa: E402
from runtimes.session import open_session  # noqa: E402

pytestmark = pytest.mark.skipif(not shutil.which("g++") or not shutil.which("cc"), reason="needs a C++ compiler")
ROWS = tuple((str(k), "" if k % 5 == 0 else str(k * 1.5 - 9), f"user {k % 7}", f"{k * 7919:x}") for k in range(1, 33))
CONFIG = "dlrm.DlrmConfig(dense_features=2, table_rows=(9, 40), dim=8, bottom=(8,), top=(8,))"
MODULE = f"""
import torch
from edge_deploy.zoo import dlrm

def rated():
    return dlrm.build({CONFIG})

class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(3, 5, 3, padding=1)
        self.last = torch.nn.Linear(5, 4)
    def forward(self, image):
        return self.last(torch.relu(self.conv(image)).mean((2, 3)))
"""


def features(module: Any = None) -> FeatureSpec:
    """How the rows become inputs, with golden rows scored by a module."""
    known = tuple(f"user {k}" for k in range(5))
    spec = FeatureSpec(
        fields=("age", "balance", "user", "item"),
        dense=(Dense(field="age", transform="log1p", mean=1.5, std=2.0), Dense(field="balance", missing=0.5, std=3.0)),
        categorical=(
            Categorical(field="user", rows=9, vocabulary=Vocabulary(values=known)),
            Categorical(field="item", rows=40, hashed=HashedIds(modulus=39, seed=5)),
        ),
    )
    dense, ids = encode_rows(spec, ROWS)
    if module is None:
        return spec
    with torch.no_grad():
        scores = module(torch.from_numpy(dense), torch.from_numpy(ids)).reshape(-1).tolist()
    golden = tuple(
        GoldenRow(raw=row, dense=tuple(d), ids=tuple(i), score=score)
        for row, d, i, score in zip(ROWS, dense.tolist(), ids.tolist(), scores, strict=True)
    )
    return FeatureSpec(fields=spec.fields, dense=spec.dense, categorical=spec.categorical, golden=golden)


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("host")
    (place / "rated_net.py").write_text(MODULE, encoding="utf-8")
    module = dlrm.build(eval(CONFIG)).eval()  # the very text that the factory has
    write_features(features(module), place)
    torch.save(module.state_dict(), place / "weights.pt")
    convert(
        convert_request(
            "rated_net:rated",
            to=["tflite", "executorch"],
            precision=["int4"],
            fallback="int8",
            weights=place / "weights.pt",
            inputs=["dense:1,2", "sparse:1,2:int64"],
            features=place / "features.json",
            out=place / "rated",
            search_path=[str(place)],
        )
    )
    np.savez(place / "images.npz", image=np.random.default_rng(0).random((40, 3, 8, 8), np.float32))
    convert(
        convert_request(
            "rated_net:Small",
            to=["executorch"],
            precision=["int4"],
            fallback="int8",
            inputs=["image:1,3,8,8"],
            calibrate=place / "images.npz",
            without_passes=["all"],
            out=place / "small",
            search_path=[str(place)],
        )
    )
    return place


def build(folder: Path, runtime: str, out: Path) -> Path:
    """Compile `folder/host` as its README says."""
    libraries = runtime_libraries(runtime, "x86_64")
    host = folder / HOST
    for name in ("model_io", "model_spec"):
        command = ["cc", "-std=c99", "-Wall", "-Werror", "-O1", "-c", str(host / f"{name}.c")]
        subprocess.run([*command, "-o", str(out / f"{name}.o")], check=True, timeout=300)
    command = ["g++", "-std=c++17", "-O1", "-Wall", f"-I{host}", *(f"-isystem{path}" for path in libraries.include)]
    command += [
        *(f"-D{name}" for name in libraries.defines),
        str(host / "host.cpp"),
        str(host / f"{runtime}_engine.cpp"),
    ]
    command += [str(out / "model_io.o"), str(out / "model_spec.o"), f"-L{libraries.folder}", "-Wl,--no-as-needed"]
    command += [*(f"-l{name}" for name in libraries.link), "-Wl,--as-needed", "-Wl,--allow-shlib-undefined", "-pthread"]
    command += [f"-Wl,-rpath,{libraries.folder}", "-lm", "-o", str(out / "host")]
    subprocess.run(command, check=True, timeout=500)
    return out / "host"


@pytest.mark.parametrize(("target", "runtime", "file"), [
    ("tflite", "litert", "model.tflite"), ("executorch", "executorch", "model.pte")
])  # fmt: skip
def test_raw_rows_get_the_scores_of_the_python_session(
    converted: Path, tmp_path: Path, target: str, runtime: str, file: str
) -> None:
    folder = converted / "rated" / f"{target}-int4"
    program = build(folder, runtime, tmp_path)
    lines = "".join("\t".join(row) + "\n" for row in ROWS)
    command = [str(program), str(folder / file)]
    said = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=120, check=False)
    assert said.returncode == 0, said.stderr
    got = [float.fromhex(line.split()[0]) for line in said.stdout.splitlines()]
    session = open_session(folder)
    dense, ids = encode_rows(features(), ROWS)
    types = {info.name: info.dtype for info in session.signature.inputs}
    wanted = []
    for k in range(len(ROWS)):
        feeds = {"dense": dense[k : k + 1].astype(types["dense"]), "sparse": ids[k : k + 1].astype(types["sparse"])}
        (answer,) = session.run(feeds).values()
        wanted.append(float(answer.reshape(-1)[0]))
    session.close()
    assert got == wanted
    wrong = subprocess.run(command, input="a\tb\n", capture_output=True, text=True, timeout=120, check=False)
    assert (wrong.returncode, wrong.stdout) == (1, "")


def test_the_encoder_in_plain_c_passes_its_golden_rows_and_notices_others(converted: Path, tmp_path: Path) -> None:
    host = tmp_path / "host"
    shutil.copytree(converted / "rated" / "tflite-int4" / HOST, host)
    sources = [str(host / name) for name in ("selftest.c", "model_io.c", "model_spec.c")]
    build_it = ["cc", "-std=c99", "-Wall", "-Wextra", "-Werror", *sources, "-lm", "-o", str(host / "selftest")]
    subprocess.run(build_it, check=True, timeout=300)
    said = subprocess.run([str(host / "selftest")], capture_output=True, text=True, timeout=60, check=True)
    assert "32 rows" in said.stdout
    vectors = host / "selftest_vectors.h"
    vectors.write_text(vectors.read_text(encoding="utf-8").replace('"user 3"', '"user 4"'), encoding="utf-8")
    subprocess.run(build_it, check=True, timeout=300)
    assert subprocess.run([str(host / "selftest")], capture_output=True, timeout=60, check=False).returncode == 1


def test_packed_weights_are_inflated_as_python_does(converted: Path, tmp_path: Path) -> None:
    folder = converted / "small" / "executorch-int4"
    program = build(folder, "executorch", tmp_path)
    images = np.load(converted / "images.npz")["image"][:8]
    session = open_session(folder)
    (info,) = session.signature.inputs
    wanted = [next(iter(session.run({info.name: image[None]}).values())) for image in images]
    session.close()
    command = [str(program), "--raw", str(folder / "model.pte"), str(folder / "model.ptd")]
    said = subprocess.run(command, input=images.tobytes(), capture_output=True, timeout=120, check=False)
    assert said.returncode == 0, said.stderr.decode()
    assert said.stdout == np.concatenate(wanted).astype(np.float32).tobytes()
    assert len(said.stdout) == 4 * math.prod((8, 4))
    (tmp_path / "cut.ptd").write_bytes((folder / "model.ptd").read_bytes()[:-1])
    command[-1] = str(tmp_path / "cut.ptd")
    said = subprocess.run(command, input=b"", capture_output=True, timeout=120, check=False)
    assert said.returncode == 1
    assert b"damaged" in said.stderr
