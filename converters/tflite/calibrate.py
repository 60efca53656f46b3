"""Ranges of every activation of a float TFLite file over a calibration set, read from the interpreter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from converters.quantize.clipping import chosen_range
from converters.quantize.ranges import HistogramObserver, MinMaxObserver, Range
from converters.quantize.tails import MOST_KEPT, TailObserver, tail_rank
from converters.tflite.bias_correction import Means, mean_key
from converters.tflite.flatbuffer import dtype_name, has_data, read_model, tensor_name
from converters.tflite.patches import Covariances, PatchObserver
from converters.tflite.pool_pads import is_lowest_pad
from converters.tflite.signatures import describe, match_inputs
from converters.tflite.structure import twin_of, views
from edge_deploy.core.artifact import Signature
from edge_deploy.core.digest import file_sha256, sample_sha256
from edge_deploy.core.errors import BadInput, ToolchainError
from edge_deploy.core.quant_spec import QuantSpec
from edge_deploy.core.require import require
from edge_deploy.core.tensor import TensorInfo, encode_input

__all__ = ["Calibration", "Ranges", "activations", "calibrate", "load_samples"]

# Trials of passes calibrate the same graph with the same few samples again and again.
KEPT, KEPT_SAMPLES = 2, 128
# Range of a variable float tensor, by (subgraph, index of the tensor in the float file).
Ranges: TypeAlias = dict[tuple[int, int], Range]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What the calibration samples say of a float file's activations.

    Attributes:
        means: Of each channel of what weighted operators read.
        covariances: Of the patches that weighted operators read.
    """

    ranges: Ranges = field(default_factory=dict)
    means: Means = field(default_factory=dict)
    covariances: Covariances = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Feeds:
    """Samples in the source's terms, and the inputs of source and file that say how to turn them."""

    samples: dict[str, np.ndarray]
    sources: tuple[TensorInfo, ...]
    file_inputs: tuple[TensorInfo, ...]


_kept: dict[Any, Calibration] = {}


def load_samples(path: Path) -> dict[str, np.ndarray]:
    """Arrays of an npz by input name, samples on axis 0.

    Raises:
        BadInput: Not an npz, no samples, or arrays of different numbers of samples.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: cannot be read as npz ({error}).") from error
    counts = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if not counts or min(counts.values()) == 0 or len(set(counts.values())) != 1:
        raise BadInput(f"{path}: samples per input: {counts}: must be the same number of at least 1 for every input.")
    return arrays


def calibrate(
    path: Path,
    samples: dict[str, np.ndarray],
    sources: tuple[TensorInfo, ...],
    spec: QuantSpec,
    *,
    file_inputs: tuple[TensorInfo, ...] | None = None,
) -> Calibration:
    """Ranges of all variable float tensors over all samples, and the channel means that bias correction needs.

    The true extremes over every sample, or what the range method makes of a second pass: never a moving average, whose
    answer depends on the order of the samples. Of subgraphs that are one network at several batch sizes only the first
    is calibrated; the plan gives all of them its scales, so that shared weights get identical biases.

    Args:
        samples: As `load_samples` gives them.
        sources: The source's inputs, in whose terms the samples are.
        file_inputs: The same inputs as the file has them, where their layout differs from the source's.

    Raises:
        BadInput: Samples do not fit the inputs, or an activation becomes NaN or infinite.
        ToolchainError: The interpreter cannot run the float file.
    """
    few = len(next(iter(samples.values()))) <= KEPT_SAMPLES
    key = (file_sha256(path), sample_sha256(samples), spec.range_method, spec.percentile, spec.rules) if few else None
    if key is not None and key in _kept:
        return _kept[key]
    model = read_model(path)
    found = Calibration()
    for number, definition in enumerate(model.signatureDefs):
        index = int(definition.subgraphIndex)
        if twin_of(model, index) == index:
            feeds = _Feeds(samples=samples, sources=sources, file_inputs=file_inputs or sources)
            _calibrate_signature(found, path, model, number, feeds, spec)
    if key is not None:
        if len(_kept) >= KEPT:
            del _kept[next(iter(_kept))]
        _kept[key] = found
    return found


def activations(
    path: Path,
    samples: dict[str, np.ndarray],
    sources: tuple[TensorInfo, ...],
    *,
    file_inputs: tuple[TensorInfo, ...] | None = None,
) -> Iterator[Callable[[int], np.ndarray]]:
    """After each inference of the first signature a function that reads a tensor by its index.

    Args:
        file_inputs: The same inputs as the file has them, where their layout differs from the source's.

    Raises:
        BadInput: Samples do not fit the inputs.
        ToolchainError: The interpreter cannot run the file.
    """
    feeds = _Feeds(samples=samples, sources=sources, file_inputs=file_inputs or sources)
    yield from _runs(path, read_model(path), 0, feeds)


def _calibrate_signature(
    found: Calibration,
    path: Path,
    model: Any,
    number: int,
    feeds: _Feeds,
    spec: QuantSpec,
) -> None:
    index = int(model.signatureDefs[number].subgraphIndex)
    graph = model.subgraphs[index]
    # What a pad with -infinity makes takes the scale of its input.
    operators = [op for op in graph.operators if not is_lowest_pad(model, graph, op)]
    made = [int(i) for i in graph.inputs] + [int(i) for op in operators for i in op.outputs]
    watched = [i for i in made if dtype_name(graph.tensors[i]) == "float32" and not has_data(model, graph.tensors[i])]
    view = views(model)[index]
    corrected = [node for node in view.nodes if (key := mean_key(view, node)) is not None and key[1] in watched]
    keys = {key for node in corrected if (key := mean_key(view, node)) is not None}
    sums = {key: np.zeros(key[2]) for key in keys}
    samples = len(next(iter(feeds.samples.values())))
    patches = [PatchObserver(view, node, samples) for node in corrected]
    extremes = {i: MinMaxObserver(name=tensor_name(graph.tensors[i])) for i in watched}
    tails: dict[int, TailObserver] = {}
    runs, several = 0, _number_of_runs(model, number, feeds)
    for read in _runs(path, model, number, feeds):
        values = {i: read(i) for i in watched}
        for tensor, observer in extremes.items():
            observer.see(values[tensor])
        if runs == 0 and spec.range_method == "percentile":
            ranks = {i: tail_rank(spec.percentile, values[i].size * several) for i in watched}
            tails = {i: TailObserver(rank=rank) for i, rank in ranks.items() if rank < MOST_KEPT}
        for tensor, tail in tails.items():
            tail.see(values[tensor])
        for key in keys:
            sums[key] += values[key[1]].reshape(-1, key[2]).mean(axis=0, dtype=np.float64)
        for patch in patches:
            patch.see(values[patch.node.inputs[0]])
        runs += 1
    found.means.update({key: total / runs for key, total in sums.items()})
    found.covariances.update({patch.node.key: patch.covariances() for patch in patches})
    ranges = {i: observer.range() for i, observer in extremes.items()}
    ranges.update({i: tail.range() for i, tail in tails.items()})
    left = [i for i in watched if i not in tails]
    if left and spec.range_method != "min-max":
        histograms = {i: HistogramObserver(extremes=ranges[i]) for i in left}
        for read in _runs(path, model, number, feeds):
            for tensor, histogram in histograms.items():
                histogram.see(read(tensor))
        ranges.update({i: chosen_range(histogram, spec) for i, histogram in histograms.items()})
    found.ranges.update({(index, i): value for i, value in ranges.items()})


def _number_of_runs(model: Any, number: int, feeds: _Feeds) -> int:
    """How many inferences `_runs` makes."""
    return -(-len(next(iter(feeds.samples.values()))) // _batch(describe(model, feeds.file_inputs, ())[number]))


def _batch(signature: Signature) -> int:
    return max([1, *(info.shape[0] for info in signature.inputs if info.shape)])


def _runs(path: Path, model: Any, number: int, feeds: _Feeds) -> Iterator[Any]:
    """After each inference a function that reads a tensor by index; one inference per batch of samples."""
    interpreter_module = require("ai_edge_litert.interpreter", extra="run-tflite")
    samples = feeds.samples
    signature = describe(model, feeds.file_inputs, ())[number]
    feeding = match_inputs(signature, feeds.sources)
    missing = sorted({source.name for source in feeding.values()} - set(samples))
    if missing:
        raise BadInput(f"calibration: inputs {', '.join(missing)} are missing; found {', '.join(samples)}.")
    # The builtin kernels, because XNNPACK keeps what passes between its operators to itself.
    resolver = interpreter_module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    try:
        interpreter = interpreter_module.Interpreter(
            str(path), experimental_op_resolver_type=resolver, experimental_preserve_all_tensors=True, num_threads=1
        )
        runner = interpreter.get_signature_runner(signature.name)
        subgraph = int(model.signatureDefs[number].subgraphIndex)
        batch = _batch(signature)
        count = len(next(iter(samples.values())))
        for start in range(0, count, batch):
            # The last batch is filled up with the first samples: repeating a sample changes no extreme.
            rows = np.arange(start, start + batch) % count
            arrays = {
                info.name: encode_input(samples[feeding[info.name].name][rows], source=feeding[info.name], target=info)
                for info in signature.inputs
            }
            runner(**arrays)
            yield lambda tensor: interpreter.get_tensor(tensor, subgraph)
    except (ValueError, RuntimeError) as error:
        raise ToolchainError(f"calibration of {path.name} with LiteRT: {error}") from error
