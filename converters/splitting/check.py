"""Run head, then tail, against the whole on the same inputs, in a child process, and compare every bit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converters.samples import save_arrays
from converters.verify import compare_arrays
from edge_deploy.core.artifact import Comparison, Signature
from edge_deploy.core.child import run_in_child
from edge_deploy.core.serde import from_json
from edge_deploy.core.tensor import TensorInfo, dequantize_output

__all__ = ["Checked", "check_halves", "random_feeds", "save_feeds"]

# Random real inputs come in several sizes, because models expect anything from unit variance to pixels.
_MAGNITUDES = (1.0, 8.0, 64.0, 255.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """Head then tail against the whole, for one cut.

    Attributes:
        comparisons: One for each signature; SNR and error in real values.
        identical: All outputs are the same bits.
    """

    cut: str
    comparisons: tuple[Comparison, ...]
    identical: bool


def check_halves(parent: Path, folders: Sequence[Path], feeds: Path) -> tuple[Checked, ...]:
    """Compare the halves in each folder with the whole.

    Args:
        parent: The artifact or the bare file that was cut.
        folders: Each with the artifacts `head` and `tail`, or one of them; the name is the cut's id.
        feeds: Inputs of the whole, as `save_feeds` writes them.

    Raises:
        ToolchainError: The runtime died.
        BadInput: A half does not load.
    """
    arguments = {"parent": parent, "folders": list(folders), "feeds": feeds}
    found = run_in_child("converters.splitting.check:check_here", arguments, stage="head and tail against the whole")
    return tuple(from_json(Checked, each, where="check") for each in found)


def check_here(parent: str, folders: list[str], feeds: str) -> list[Checked]:
    """The child's part of `check_halves`."""
    runs = _read_feeds(Path(feeds))
    wholes = {name: _run(Path(parent), name, inputs) for name, inputs in runs.items()}
    return [_check(Path(folder), runs, wholes) for folder in folders]


@dataclass(frozen=True, slots=True)
class _Answers:
    signature: Signature
    kernels: str
    values: list[dict[str, np.ndarray]]


def _run(source: Path, signature: str, inputs: Sequence[Mapping[str, np.ndarray]]) -> _Answers:
    from runtimes.session import open_session

    session = open_session(source, signature=signature, threads=1, trusted=True)
    wanted = [info.name for info in session.signature.inputs]
    values = [session.run({name: each[name] for name in wanted}) for each in inputs]
    answers = _Answers(session.signature, session.kernels, values)
    session.close()
    return answers


def _check(
    folder: Path, runs: Mapping[str, Sequence[Mapping[str, np.ndarray]]], wholes: Mapping[str, _Answers]
) -> Checked:
    comparisons, identical = [], True
    for name, inputs in runs.items():
        whole, known = wholes[name], list(inputs)
        got: list[dict[str, np.ndarray]] = [{} for _ in inputs]
        for side in ("head", "tail"):
            if not (folder / side).is_dir():
                continue
            answers = _run(folder / side, name, known)
            known = [{**before, **made} for before, made in zip(known, answers.values, strict=True)]
            got = [{**before, **made} for before, made in zip(got, answers.values, strict=True)]
        identical &= all(
            _same_bits(want[info.name], have[info.name])
            for want, have in zip(whole.values, got, strict=True)
            for info in whole.signature.outputs
        )
        comparisons.append(_compared(name, whole, got))
    return Checked(cut=folder.name, comparisons=tuple(comparisons), identical=identical)


def _same_bits(want: np.ndarray, have: np.ndarray) -> bool:
    return want.dtype == have.dtype and want.shape == have.shape and want.tobytes() == have.tobytes()


def _compared(name: str, whole: _Answers, got: Sequence[Mapping[str, np.ndarray]]) -> Comparison:
    def stacked(values: Sequence[Mapping[str, np.ndarray]], info: TensorInfo) -> np.ndarray:
        parts = [np.atleast_1d(dequantize_output(each[info.name], info)) for each in values]
        return np.concatenate(parts) if parts[0].ndim > 1 else np.stack(parts)

    outputs = whole.signature.outputs
    return compare_arrays(
        {info.name: stacked(whole.values, info) for info in outputs},
        {info.name: stacked(got, info) for info in outputs},
        kernels=whole.kernels,
        threads=1,
        signature=name,
    )


def random_feeds(signatures: Sequence[Signature], count: int, *, seed: int = 0) -> dict[str, list[Any]]:
    """Seeded inputs of each signature: the whole range of quantized inputs, real values of several sizes, valid ids."""
    generator = np.random.default_rng(seed)
    return {
        signature.name: [
            {info.name: _values(info, generator, number) for info in signature.inputs} for number in range(count)
        ]
        for signature in signatures
    }


def _values(info: TensorInfo, generator: np.random.Generator, number: int) -> np.ndarray:
    shape = tuple(max(size, 1) for size in info.shape)
    kind = np.dtype(info.dtype)
    if kind.kind == "f":
        values = generator.standard_normal(shape) * _MAGNITUDES[number // 2 % len(_MAGNITUDES)]
        return np.asarray(np.abs(values) if number % 2 else values, dtype=kind)
    if kind.kind == "b":
        return np.asarray(generator.integers(0, 2, size=shape), dtype=kind)
    if info.scale:
        limits = np.iinfo(kind)
        return np.asarray(generator.integers(limits.min, limits.max, size=shape, endpoint=True), dtype=kind)
    bounds = np.asarray(info.id_bounds or (2,))  # two rows are what any table has
    fits = len(bounds) == 1 or (bool(shape) and shape[-1] == len(bounds))
    return np.asarray(generator.integers(0, bounds if fits else bounds.min(), size=shape), dtype=kind)


def save_feeds(feeds: Mapping[str, Sequence[Mapping[str, np.ndarray]]], path: Path) -> None:
    """Write inputs by signature; arrays are named by number, because names of signatures and tensors may be any."""
    arrays: dict[str, np.ndarray] = {}
    index: list[tuple[str, int, str]] = []
    for name, samples in feeds.items():
        for number, sample in enumerate(samples):
            for tensor, values in sample.items():
                index.append((name, number, tensor))
                arrays[str(len(arrays))] = np.asarray(values)
    save_arrays(arrays, path)
    path.with_suffix(".json").write_text(json.dumps(index), encoding="utf-8")


def _read_feeds(path: Path) -> dict[str, list[dict[str, np.ndarray]]]:
    index = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    found: dict[str, list[dict[str, np.ndarray]]] = {}
    with np.load(path, allow_pickle=False) as archive:
        for place, (name, number, tensor) in enumerate(index):
            samples = found.setdefault(name, [])
            if number == len(samples):
                samples.append({})
            samples[number][tensor] = archive[str(place)]
    return found
