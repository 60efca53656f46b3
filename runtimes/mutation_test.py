"""Damaged model files, random and malicious: `inspect` must answer for each, and no signal may reach this process.

EDGE_DEPLOY_MUTANTS sets how many files are tried; a thousand by default.
"""

import os
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_deploy.core.child import run_in_child
from edge_deploy.core.errors import BadInput, EdgeDeployError
from runtimes.formats.by_hand_test import OPS, ByHand, dense, look_up, offset_buffers, schema, small_cnn
from runtimes.inspect import inspect
from runtimes.session import open_session

MUTANTS = int(os.environ.get("EDGE_DEPLOY_MUTANTS", "1000"))
TIMEOUT_S = 20.0


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Cut off, with some bits flipped, or with a run of bytes overwritten."""
    kind = rng.choice(["cut", "bits", "bytes", "run"])
    if kind == "cut":
        return content[: rng.randrange(len(content))]
    result = bytearray(content)
    if kind == "bits":
        for _ in range(rng.randrange(1, 9)):
            result[rng.randrange(len(result))] ^= 1 << rng.randrange(8)
    elif kind == "bytes":
        for _ in range(rng.randrange(1, 9)):
            result[rng.randrange(len(result))] = rng.choice([0, 1, 127, 128, 255])
    else:
        start = rng.randrange(len(result))
        result[start : start + 16] = rng.randbytes(len(result[start : start + 16]))
    return bytes(result)


def _place(values: Any, rng: random.Random, options: list[int]) -> list[int]:
    changed = [int(value) for value in values]
    if changed:
        changed[rng.randrange(len(changed))] = rng.choice(options)
    return changed


def _buffer(model: Any, rng: random.Random) -> None:
    full = [buffer for buffer in model.buffers if buffer.data is not None and len(buffer.data)]
    if full:
        buffer = rng.choice(full)
        buffer.data = np.asarray(buffer.data)[: rng.randrange(len(buffer.data))]


def _opcode(code: Any, rng: random.Random) -> None:
    code.builtinCode = rng.randrange(0, 210)
    code.deprecatedBuiltinCode = min(127, code.builtinCode)
    code.version = rng.choice([1, 2, 3, 5])


def _quantization(tensor: Any, rng: random.Random) -> None:
    quantization = tensor.quantization
    if quantization is None:
        return
    kind = rng.choice(["scale", "zero point", "axis", "block"])
    if kind == "scale":
        quantization.scale = np.array([rng.choice([0.0, np.nan, np.inf, -1.0, 1e-38, 1e38])], np.float32)
    elif kind == "zero point":
        quantization.zeroPoint = np.array([rng.choice([300, -300, 2**40])], np.int64)
    elif kind == "axis":
        quantization.quantizedDimension = rng.choice([-1, 1, 2, 3, 9])
    elif quantization.details is not None:
        quantization.details.blockSize = rng.choice([0, -1, 1, 4, 32, 2**31 - 1])
        quantization.details.scales = rng.choice([-5, 0, 1, 3, 9999])


def nonsense(content: bytes, rng: random.Random) -> bytes:
    """A well formed flatbuffer whose content is wrong: an index, a shape, a type, an option, an order."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(bytearray(content), 0))
    graph = rng.choice(model.subgraphs)
    tensor, operator = rng.choice(graph.tensors), rng.choice(graph.operators)
    count = len(graph.tensors)
    indices = [-1, rng.randrange(count), count + 5, -7, 2**31 - 1]
    sizes = [0, -1, 1, 2, 7, 1000, 65536, 2**31 - 1]
    changes: dict[str, Callable[[], object]] = {
        "shape": lambda: setattr(tensor, "shape", _place(tensor.shape, rng, sizes)),
        "rank": lambda: setattr(tensor, "shape", [rng.choice([1, 2, 3]) for _ in range(rng.randrange(7))]),
        "huge": lambda: setattr(tensor, "shape", [65536, 65536, 65536, 3]),
        "type": lambda: setattr(tensor, "type", rng.randrange(0, 24)),
        "buffer": lambda: setattr(tensor, "buffer", rng.choice([0, 1, 2, len(model.buffers), 2**31])),
        "short buffer": lambda: _buffer(model, rng),
        "input": lambda: setattr(operator, "inputs", _place(operator.inputs, rng, indices)),
        "fewer inputs": lambda: setattr(operator, "inputs", list(operator.inputs)[:-1]),
        "output": lambda: setattr(operator, "outputs", _place(operator.outputs, rng, indices)),
        "opcode": lambda: _opcode(rng.choice(model.operatorCodes), rng),
        "opcode index": lambda: setattr(operator, "opcodeIndex", rng.choice([0, 1, 2, 77])),
        "no options": lambda: (setattr(operator, "builtinOptions", None), setattr(operator, "builtinOptionsType", 0)),
        "quantization": lambda: _quantization(tensor, rng),
        "graph inputs": lambda: setattr(graph, "inputs", rng.choice([[], [rng.randrange(count)], [9999], [-1]])),
        "graph outputs": lambda: setattr(graph, "outputs", rng.choice([[], [rng.randrange(count)], [9999], [-1]])),
        "dropped": lambda: graph.operators.remove(operator),
        "doubled": lambda: graph.operators.insert(rng.randrange(len(graph.operators)), operator),
        "shuffled": lambda: rng.shuffle(graph.operators),
        "signature": lambda: setattr(model.signatureDefs[0], "subgraphIndex", rng.choice([1, 7, 2**31])),
        "signature tensor": lambda: setattr(model.signatureDefs[0].inputs[0], "tensorIndex", rng.choice([3, 99])),
    }
    changes[rng.choice(sorted(changes))]()
    hand = ByHand()
    hand.model = model
    return hand.bytes()


def mutants(sources: list[bytes], count: int, seed: int) -> Iterator[bytes]:
    rng = random.Random(seed)
    made = 0
    while made < count:
        content = rng.choice(sources)
        try:
            mutant = damaged(content, rng) if made % 2 else nonsense(content, rng)
        except (TypeError, ValueError, OverflowError):  # the writer itself refuses this change
            continue
        made += 1
        yield mutant


def sources() -> list[bytes]:
    files = [small_cnn().bytes(), small_cnn(bits=4).bytes(), look_up().bytes(), dense((1, 3)).bytes()]
    return [*files, offset_buffers(small_cnn().bytes())]


def try_tflite(count: int, seed: int) -> dict[str, Any]:
    """In a fresh process, which loads the runtime and then forks for every file: what became of them."""
    from ai_edge_litert.interpreter import Interpreter

    Interpreter(model_content=dense().bytes())
    return try_each("mutant.tflite", mutants(sources(), count, seed))


def try_pte(path: str, count: int, seed: int) -> dict[str, Any]:
    """As `try_tflite`, for random damage to one `.pte` file."""
    import executorch.extension.pybindings.portable_lib
    import executorch.kernels.quantized  # noqa: F401

    content, rng = Path(path).read_bytes(), random.Random(seed)
    return try_each("mutant.pte", (damaged(content, rng) for _ in range(count)))


def try_each(name: str, contents: Iterable[bytes]) -> dict[str, Any]:
    answers: Counter[str] = Counter()
    unforeseen = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        for number, content in enumerate(contents):
            path.write_bytes(content)
            try:
                report = inspect(path, trial="fork", timeout_s=TIMEOUT_S)
            except BadInput as error:
                assert str(path) in str(error)
                answers["refused"] += 1
                continue
            answers[report.loads.split(":")[0]] += 1
            if report.loads.startswith("died") and not report.problems:
                unforeseen.append(number)
    return {"answers": dict(answers), "unforeseen": unforeseen}


def test_inspect_answers_for_every_damaged_tflite_file() -> None:
    arguments = {"count": MUTANTS, "seed": 2}
    found = run_in_child("runtimes.mutation_test:try_tflite", arguments, stage="mutants of .tflite files")
    answers = found["answers"]
    assert sum(answers.values()) == MUTANTS
    assert answers["yes"] and answers["refused"] and answers["no"], answers
    assert "ran too long" not in answers, answers
    # What kills the runtime is seen by lint; what will be found one day to pass it dies in a child process.
    assert len(found["unforeseen"]) <= MUTANTS // 500, found


@pytest.fixture(scope="module")
def small_pte(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("executorch")
    path = tmp_path_factory.mktemp("pte") / "small.pte"
    run_in_child("runtimes.mutation_test:write_small_pte", {"path": path}, stage="a small .pte file")
    return path


def write_small_pte(path: str) -> None:
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(64, 5))
    program = torch.export.export(module.eval(), (torch.zeros(1, 3, 6, 6),))
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    Path(path).write_bytes(lowered.to_executorch().buffer)


def test_inspect_answers_for_every_damaged_pte_file(small_pte: Path) -> None:
    count = max(1, MUTANTS // 10)
    arguments = {"path": small_pte, "count": count, "seed": 4}
    answers = run_in_child("runtimes.mutation_test:try_pte", arguments, stage="mutants of a .pte file")["answers"]
    assert sum(answers.values()) == count
    assert answers["yes"] and answers["refused"], answers


def test_a_sound_pte_file_is_reported(small_pte: Path) -> None:
    report = inspect(small_pte)
    assert (report.format, report.loads, report.problems) == ("executorch", "yes", ())
    assert report.weight_bytes == {"float32": 4 * (4 * 3 * 3 * 3 + 64 * 5)}
    assert report.runtime.startswith("executorch ")
    (signature,) = report.signatures
    assert signature.name == "forward"
    assert [(info.shape, info.dtype) for info in signature.inputs] == [((1, 3, 6, 6), "float32")]
    assert [info.shape for info in signature.outputs] == [(1, 5)]


def test_a_file_that_kills_its_runtime_is_reported_with_the_signal(tmp_path: Path) -> None:
    path = look_up(block=(9999, 16)).write(tmp_path / "m.tflite")
    report = inspect(path)
    assert report.loads == "died of SIGSEGV"
    assert report.runtime.startswith("ai-edge-litert ")
    assert any("tensor 9999" in problem for problem in report.problems)
    assert inspect(look_up(block=(2, 0)).write(path), trial="fork").loads == "died of SIGFPE"


def test_a_session_never_dies_of_a_file_that_kills_its_runtime(tmp_path: Path) -> None:
    for changes in ({"block": (9999, 16)}, {"block": (-5, 16)}, {"block": (2, 0)}):
        with pytest.raises(EdgeDeployError):
            open_session(look_up(**changes).write(tmp_path / "m.tflite"), trusted=True)


def test_a_sound_file_is_reported_in_full(tmp_path: Path) -> None:
    report = inspect(look_up(rows=100, columns=16).write(tmp_path / "m.tflite"))
    assert (report.format, report.loads, report.problems, report.warnings) == ("tflite", "yes", (), ())
    assert report.weight_bytes == {"int4": 800}
    assert report.operators == {"EMBEDDING_LOOKUP": 1}
    assert [signature.name for signature in report.signatures] == ["serving_default"]


def test_a_file_with_an_unknown_operator_is_reported_and_does_not_load(tmp_path: Path) -> None:
    hand = dense()
    code = hand.model.operatorCodes[0]
    code.builtinCode = code.deprecatedBuiltinCode = OPS.CUSTOM
    code.customCode = b"Mine"
    hand.graph.operators[0].builtinOptions, hand.graph.operators[0].builtinOptionsType = None, 0
    report = inspect(hand.write(tmp_path / "m.tflite"))
    assert report.loads.startswith("no: ") and "Mine" in report.loads
    assert report.operators == {"CUSTOM Mine": 1, "FULLY_CONNECTED": 1}


@pytest.mark.parametrize("name", ["m.txt", "absent.tflite"])
def test_other_files_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "m.txt").write_text("no model")
    with pytest.raises(BadInput, match=name.replace(".", r"\.")):
        inspect(tmp_path / name)
