"""Prove an artifact: read back what each layer became, run it in a child process, compare it with its float source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converters.samples import save_arrays
from edge_deploy.core.artifact import Artifact, Comparison, LayerFacts, LayerOutcome, Signature
from edge_deploy.core.child import Child, run_in_child
from edge_deploy.core.errors import VerificationFailed
from edge_deploy.core.serde import from_json
from edge_deploy.core.tensor import TensorInfo, dequantize_output, encode_input

__all__ = [
    "Run",
    "all_runs",
    "answer",
    "check_float",
    "check_outcomes",
    "compare",
    "compare_arrays",
    "logistic",
    "runtime_child",
]

IDENTICAL_DB = 999.0
LEAST_FLOAT_SNR_DB = 40.0  # a float file rounds alone, 100 dB and more; far below, it computes something else
MAX_DYNAMIC_BATCH = 8
WARM = {
    "tflite": ("runtimes.backends.litert", "ai_edge_litert.interpreter"),
    "executorch": ("runtimes.backends.executorch", "executorch.extension.pybindings.portable_lib"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One way to run the artifact."""

    signature: str
    threads: int


def all_runs(artifact: Artifact) -> tuple[Run, ...]:
    """The default signature at 1 and 2 threads, because kernels differ by thread count, and every other at 1."""
    first, *others = (signature.name for signature in artifact.signatures)
    if artifact.format == "c":  # which runs on one thread
        return (Run(signature=first, threads=1),)
    rest = (Run(signature=other, threads=1) for other in others)
    return Run(signature=first, threads=1), Run(signature=first, threads=2), *rest


def logistic(values: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), without overflow."""
    result: np.ndarray = 0.5 * (1.0 + np.tanh(0.5 * values.astype(np.float64)))
    return result


def runtime_child(target: str) -> Child:
    """A process that begins to import the runtime of what this target writes, for `compare`."""
    return Child(warm=("converters.verify", *WARM.get(target, ())))


def compare(
    folder: Path,
    *,
    runs: Sequence[Run],
    feeds: Path,
    answers: Path,
    scores: Path | None = None,
    child: Child | None = None,
) -> tuple[Comparison, ...]:
    """Run every sample through the artifact in a child process and compare with the float source's outputs.

    Args:
        folder: The artifact, its manifest written.
        runs: Signatures and thread counts to try.
        feeds: npz, one array [samples, ...] for each source input.
        answers: npz, one array [samples, ...] for each source output.
        scores: Where to keep the first output of the first run as .npy [samples, ...] in the source's terms.
        child: One of `runtime_child`, to use instead of a fresh one.

    Raises:
        ToolchainError: The runtime died.
        BadInput: The artifact does not load.
        VerificationFailed: A float32 artifact differs by more than rounding.
    """
    arguments = {"folder": folder, "runs": runs, "feeds": feeds, "answers": answers, "scores": scores}
    stage = f"{folder.name}: run and compare"
    found = run_in_child("converters.verify:compare_here", arguments, stage=stage, child=child)
    return tuple(from_json(Comparison, each, where=folder.name) for each in found)


def answer(folder: Path, *, signature: Signature, feeds: Path, answers: Path) -> None:
    """Write the artifact's own outputs at one thread, in the source's terms, to the npz `answers`."""
    arguments = {"folder": folder, "signature": signature.name, "feeds": feeds, "answers": answers}
    run_in_child("converters.verify:answer_here", arguments, stage=f"{folder.name}: run at 1 thread")


def answer_here(folder: str, signature: str, feeds: str, answers: str) -> None:
    """The child's part of `answer`."""
    from runtimes.folder import read_artifact
    from runtimes.session import open_session

    session = open_session(Path(folder), signature=signature, threads=1)
    save_arrays(run_all(session, read_artifact(Path(folder)), _arrays(Path(feeds))), Path(answers))


def compare_here(folder: str, runs: list[Any], feeds: str, answers: str, scores: str | None) -> list[Comparison]:
    """The child's part of `compare`."""
    from runtimes.folder import read_artifact
    from runtimes.session import open_session

    known = read_artifact(Path(folder))
    inputs, reference = _arrays(Path(feeds)), _arrays(Path(answers))
    found: list[Comparison] = []
    for each in runs:
        run = from_json(Run, each, where="run")
        session = open_session(Path(folder), signature=run.signature, threads=run.threads)
        outputs = run_all(session, known, inputs)
        if scores is not None and not found:
            np.save(scores, next(iter(outputs.values())))
        kernels = session.kernels
        session.close()
        found.append(compare_arrays(reference, outputs, kernels=kernels, threads=run.threads, signature=run.signature))
    if known.spec.is_float:
        check_float(found)
    return found


def check_float(comparisons: Sequence[Comparison]) -> None:
    """Refuse what a float32 file cannot be by rounding alone.

    Raises:
        VerificationFailed: Names the kernels, the signature and the distance.
    """
    problems = [
        f"{each.kernels}, {each.threads} threads, signature {each.signature}: SNR {each.snr_db:.1f} dB against the "
        f"float model, where float32 must have {LEAST_FLOAT_SNR_DB:.0f} dB: the file computes something else."
        for each in comparisons
        if each.snr_db < LEAST_FLOAT_SNR_DB
    ]
    if problems:
        raise VerificationFailed(*problems)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def run_all(session: Any, artifact: Artifact, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs of all samples in the source's terms: real values, its layout, probabilities where it gives them.

    Args:
        inputs: One array [samples, ...] for each source input.
    """
    signature: Signature = session.signature
    sources = {info.name: info for info in artifact.source_inputs}
    encoded = {
        info.name: encode_input(inputs[info.name], source=sources[info.name], target=info) for info in signature.inputs
    }
    count = len(next(iter(encoded.values())))
    sizes = {info.name: _batch(info, count) for info in signature.inputs}
    batch = min(sizes.values())
    # Half a model may take tensors that are no rows of samples: all of what came out is looked at then.
    whole = len(set(sizes.values())) > 1
    collected: dict[str, list[np.ndarray]] = {info.name: [] for info in artifact.source_outputs}
    for call, start in enumerate(range(0, count, batch)):
        answer = session.run({name: array[_rows(call, sizes[name], count, whole)] for name, array in encoded.items()})
        for info, source in zip(signature.outputs, artifact.source_outputs, strict=True):
            values = _in_source_terms(answer[info.name], info, source)
            collected[source.name].append(values if whole else values[: min(batch, count - start)])
    return {name: np.concatenate(parts) for name, parts in collected.items()}


def _rows(call: int, size: int, count: int, wrap: bool) -> np.ndarray:
    """Samples of one call: the last batch repeats the last one; with `wrap` the first ones come again."""
    rows = np.arange(call * size, (call + 1) * size)
    return rows % count if wrap else rows.clip(max=count - 1)


def _batch(info: TensorInfo, count: int) -> int:
    size = info.shape[0]
    return size if size > 0 else min(MAX_DYNAMIC_BATCH, count)


def _in_source_terms(values: np.ndarray, info: TensorInfo, source: TensorInfo) -> np.ndarray:
    real = dequantize_output(values, info)
    if info.meaning == "logit" and source.meaning == "probability":
        real = logistic(real).astype(np.float32)
    if info.layout is not None and source.layout is not None and info.layout != source.layout:
        real = real.transpose((0, 2, 3, 1) if source.layout == "NHWC" else (0, 3, 1, 2))
    return real


def compare_arrays(
    reference: Mapping[str, np.ndarray],
    outputs: Mapping[str, np.ndarray],
    *,
    kernels: str,
    threads: int,
    signature: str = "",
) -> Comparison:
    """SNR, cosine, largest error and top-1 agreement of `outputs` against `reference`.

    Args:
        reference: Arrays [samples, ...] by output name; the first is the one that top-1 is taken of.
        outputs: The same names and shapes.
    """
    pairs = [(reference[name].astype(np.float64), outputs[name].astype(np.float64)) for name in reference]
    for (name, have), (want, got) in zip(outputs.items(), pairs, strict=True):
        if want.size != got.size:
            raise VerificationFailed(f"output {name}: shape {have.shape}, the float model gives {want.shape}.")
    want = np.concatenate([a.ravel() for a, _ in pairs])
    got = np.concatenate([b.ravel() for _, b in pairs])
    finite = bool(np.isfinite(got).all())
    first_want, first_got = pairs[0]
    rows = len(first_want)
    classes = first_want.reshape(rows, -1).shape[1]
    agreement = None
    if classes > 1 and first_want.ndim == 2:
        same = first_want.reshape(rows, -1).argmax(1) == first_got.reshape(rows, -1).argmax(1)
        agreement = float(same.mean())
    return Comparison(
        kernels=kernels,
        threads=threads,
        samples=rows,
        snr_db=_snr_db(want, got) if finite else -IDENTICAL_DB,
        cosine=_cosine(want, got) if finite else 0.0,
        max_error=float(np.abs(want - got).max()) if finite else float("inf"),
        finite=finite,
        top1_agreement=agreement,
        signature=signature,
    )


def _snr_db(want: np.ndarray, got: np.ndarray) -> float:
    signal, noise = float(np.square(want).sum()), float(np.square(want - got).sum())
    if noise == 0:
        return IDENTICAL_DB
    return -IDENTICAL_DB if signal == 0 else float(10 * np.log10(signal / noise))


def _cosine(want: np.ndarray, got: np.ndarray) -> float:
    norm = float(np.linalg.norm(want) * np.linalg.norm(got))
    return float(want @ got / norm) if norm else float(np.array_equal(want, got))


def check_outcomes(outcomes: tuple[LayerOutcome, ...], facts: tuple[LayerFacts, ...]) -> None:
    """Hold what the target claims against what the bytes of its file say.

    Tables that a file stores as one have no layer of their own in it; their width must then be found among the layers
    that no claim names, with at least the bytes of the largest of them.

    Raises:
        VerificationFailed: A layer with weights is missing from the file, or has another width than claimed.
    """
    # A move at a border, such as a transposition, may bear the name of the layer beside it.
    known = {fact.layer: fact for fact in sorted(facts, key=lambda fact: fact.weight_count > 0)}
    claimed = {outcome.layer for outcome in outcomes}
    unnamed: dict[str, int] = {}
    for each in facts:
        if each.layer not in claimed and each.weight_dtype is not None:
            unnamed[each.weight_dtype] = unnamed.get(each.weight_dtype, 0) + each.weight_bytes
    problems = []
    for outcome in outcomes:
        fact = known.get(outcome.layer)
        if not outcome.weight_bytes:
            continue
        where = f"layer {outcome.layer} ({outcome.op})"
        if fact is None:
            width = outcome.got.partition(" ")[0].rstrip(",")
            # Two 4-bit values that a program unpacks by itself stand in the file as a byte.
            held = unnamed.get(width, 0) + (unnamed.get("uint8", 0) if width == "int4" else 0)
            if held < outcome.weight_bytes:
                problems.append(
                    f"{where}: claimed {outcome.weight_bytes} bytes of {width} weights, and the file has no such layer."
                )
        elif abs(fact.weight_bits - outcome.weight_bits) > 0.01:
            problems.append(
                f"{where}: claimed {outcome.weight_bits:g} bits a weight, the file has {fact.weight_bits:g}."
            )
    if problems:
        raise VerificationFailed(*problems)
