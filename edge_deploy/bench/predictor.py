"""`make bench-predictor`: what the static predictor is worth on models that it was not fitted on.

Needs EDGE_DEPLOY_DATA. Three questions: our own profiles of .tflite files from other people, one model left out each
time; layer configurations of a published table, a fifth held out; and whole networks on five systems of another, one
network left out. Profiles and network structures are kept in build/bench-predictor (BENCH=--fresh makes them again).
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_deploy.api.profile import graph_of, profile
from edge_deploy.bench.models import development_data
from edge_deploy.bench.predictor_tables import neurosurgeon_samples, scission_samples
from edge_deploy.bench.rows import markdown
from edge_deploy.core.cut import make_cut
from edge_deploy.core.errors import EdgeDeployError
from edge_deploy.core.layer_graph import LayerGraph
from edge_deploy.core.legality import illegal_because
from edge_deploy.core.profile import ModelProfile
from edge_deploy.core.serde import from_json, to_json
from edge_deploy.core.tensor import TensorInfo
from partitioner.predictor.coefficients import (
    FLOOR_SHARE,
    Sample,
    estimate_profile,
    fit_coefficients,
    fit_profiles,
    predict,
)
from partitioner.predictor.features import Work
from partitioner.predictor.score import cut_regret, spearman
from partitioner.study.scission import INPUT_BYTES, BlockTable, read_links

HOME = Path("build/bench-predictor")
FOLDS = 5
# A cloud so many times as fast as the device; links that take such a share of the model's own time for its input.
CLOUD_FACTORS = (4.0, 16.0)
WIRE_SHARES = (0.1, 0.3, 1.0, 3.0)
RTT_SHARES = (0.0, 0.1)
# Beside the links of Scission's own tables: bits per second, seconds.
MORE_LINKS = tuple((rate, 0.02) for rate in (0.25e6, 0.5e6, 1e6, 2e6, 5e6, 10e6, 50e6, 200e6))
# Scission's compressed image, and an image as the networks take it, in float32: then more tensors inside are smaller.
INPUTS = (INPUT_BYTES, 224 * 224 * 3 * 4)
Kept = Callable[[str, Callable[[], Any]], Any]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables; progress goes to standard error line by line as it is made."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fresh", action="store_true", help="measure and build again")
    fresh = parser.parse_args(arguments).fresh
    data = development_data()

    def kept(name: str, make: Callable[[], Any]) -> Any:
        file = HOME / f"{name}.json"
        if file.exists() and not fresh:
            return json.loads(file.read_text(encoding="utf-8"))
        value = make()
        HOME.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(value), encoding="utf-8")
        partial.replace(file)
        return value

    print("Own profiles, INT8 .tflite on this machine, each model estimated from the others\n")
    print(own(data, kept))
    print("\nPublished configurations (Neurosurgeon's layers, one edge machine), a fifth held out in turn\n")
    print(configurations(data))
    print("\nPublished networks (Scission), each estimated from the others, by system\n")
    print(networks(data, kept))


def own(data: Path, kept: Kept) -> str:
    """Rank correlation, error and regret of each model, estimated from all others."""
    measured: list[tuple[LayerGraph, ModelProfile]] = []
    for path in _integer_models(data / "models"):
        made = kept(f"profile-{path.stem}", lambda path=path: to_json(profile(path, how="profiler", rounds=5)))  # type: ignore[misc]  # bound now
        measured.append((_one_sample(graph_of(path)), from_json(ModelProfile, made, where=path.name)))
    rows = []
    for index, (graph, truth) in enumerate(measured):
        others = [pair for number, pair in enumerate(measured) if number != index]
        guess = estimate_profile(fit_profiles(others), graph, artifact="left out")
        true_s, guess_s = (np.array(list(one.layer_s.values())) for one in (truth, guess))
        regret = _own_regret(graph, truth, guess)
        rows.append(
            (
                truth.artifact,
                len(graph.layers),
                f"{truth.whole_s * 1e3:.3g}",
                f"{truth.sum_s / truth.whole_s:.2f}",
                f"{guess.whole_s / truth.whole_s:.2f}",
                f"{spearman(true_s, guess_s):.3f}",
                f"{_median_error(true_s, guess_s):.0%}",
                f"{np.mean(regret):.1%}",
                f"{np.max(regret):.1%}",
            )
        )
    columns = (
        "model", "layers", "ms", "sum / whole", "estimate / whole", "Spearman", "median layer error", "mean regret",
        "worst regret",
    )  # fmt: skip
    return markdown(columns, rows)


def _integer_models(folder: Path) -> list[Path]:
    found = []
    for path in sorted(folder.glob("*/*.tflite")):
        try:
            graph = graph_of(path)
        except EdgeDeployError:
            continue
        working = [layer for layer in graph.layers if layer.macs]
        if working and all(tensor.dtype in ("int8", "uint8") for layer in working for tensor in layer.outputs):
            found.append(path)
    return found


def _one_sample(graph: LayerGraph) -> LayerGraph:
    """The graph for a batch of 1 where it is open."""

    def fixed(tensors: Sequence[TensorInfo]) -> tuple[TensorInfo, ...]:
        return tuple(replace(tensor, shape=tuple(max(size, 1) for size in tensor.shape)) for tensor in tensors)

    layers = tuple(replace(layer, outputs=fixed(layer.outputs)) for layer in graph.layers)
    return replace(graph, inputs=fixed(graph.inputs), layers=layers)


def _own_regret(graph: LayerGraph, truth: ModelProfile, guess: ModelProfile) -> np.ndarray:
    """Over a grid of links and clouds that leave something to choose."""
    names = [layer.name for layer in graph.layers]
    cuts = [make_cut(graph, names[:count]) for count in range(len(names) + 1)]
    legal = [count for count, cut in enumerate(cuts) if not illegal_because(graph, cut)]
    crosses = np.array([count < len(names) for count in legal])
    sent = np.array([cuts[count].up_bytes + cuts[count].down_bytes for count in legal], dtype=np.float64)
    wires = np.stack(
        [
            np.where(crosses, (sent / max(sent[0], 1.0) * share + rtt) * truth.whole_s, 0.0)
            for share in WIRE_SHARES
            for rtt in RTT_SHARES
        ]
    )
    found = []
    for factor in CLOUD_FACTORS:
        halves = []
        for one in (truth, guess):
            seconds = np.concatenate(([0.0], np.cumsum([one.layer_s[name] for name in names])))
            edge = np.array([seconds[count] + (one.overhead_s if count else 0.0) for count in legal])
            cloud = np.array(
                [
                    (seconds[-1] - seconds[count] + (one.overhead_s if count < len(names) else 0.0)) / factor
                    for count in legal
                ]
            )
            halves += [edge, cloud]
        found.append(cut_regret(halves[0], halves[1], halves[2], halves[3], wires))
    return np.concatenate(found)


def configurations(data: Path) -> str:
    """Rank correlation and error on configurations that were held out."""
    rows = []
    for kind, samples in neurosurgeon_samples(data / "tables" / "neurosurgeon_layer_latency").items():
        fold = np.random.default_rng(0).permutation(len(samples)) % FOLDS
        true_s = np.array([sample.seconds for sample in samples])
        guess_s = np.zeros(len(samples))
        for number in range(FOLDS):
            fit = fit_coefficients([samples[index] for index in np.flatnonzero(fold != number)], device="edge")
            for index in np.flatnonzero(fold == number):
                guess_s[index] = predict(fit, samples[index].works)[0]
        rows.append((kind, len(samples), f"{spearman(true_s, guess_s):.3f}", f"{_median_error(true_s, guess_s):.0%}"))
    return markdown(("layer", "configurations", "Spearman", "median error"), rows)


def networks(data: Path, kept: Kept) -> str:
    """Rank correlation of blocks by system, and regret of the cut between the device and each other system."""
    folder = data / "tables" / "scission_qub"
    nets, left_out = scission_samples(folder, kept)
    systems = list(next(iter(nets.values()))[0].seconds)
    guesses = {system: _leave_one_out(nets, system) for system in systems}
    regrets = _network_regret(nets, guesses, folder)
    rows = []
    for system in systems:
        true = {name: np.array(table.seconds[system]) for name, (table, _) in nets.items()}
        ranks = [spearman(true[name], guesses[system][name]) for name in nets]
        errors = [_median_error(true[name], guesses[system][name]) for name in nets]
        wholes = [abs(guesses[system][name].sum() / true[name].sum() - 1) for name in nets]
        rows.append(
            (
                system,
                f"{np.median(ranks):.3f} ({min(ranks):.3f})",
                f"{np.median(errors):.0%}",
                f"{np.median(wholes):.0%}",
                *_regret_cells(regrets.get(system, [])),
            )
        )
    columns = (
        "system", "Spearman of blocks: median net (worst)", "median block error", "median whole error",
        "mean regret, cut from the device to it",
        "within 5 % of the best", "worst", "best cut inside the net", "mean regret there",
    )  # fmt: skip
    said = "".join(f"\n\nLeft out: {name}: {why}." for name, why in left_out.items())
    return f"{len(nets)} networks.\n\n" + markdown(columns, rows) + said


def _regret_cells(found: Sequence[tuple[float, bool]]) -> tuple[str, ...]:
    if not found:
        return ("",) * 5
    every, inner = np.array([regret for regret, _ in found]), np.array([regret for regret, inside in found if inside])
    there = f"{inner.mean():.1%}" if len(inner) else ""
    within = f"{np.mean(every <= 0.05):.0%}"
    return f"{every.mean():.1%}", within, f"{every.max():.0%}", f"{len(inner)} of {len(every)}", there


Nets = Mapping[str, tuple[BlockTable, list[tuple[Work, ...]]]]


def _leave_one_out(nets: Nets, system: str) -> dict[str, np.ndarray]:
    samples: dict[str, list[Sample]] = {}
    for name, (table, blocks) in nets.items():
        seconds = table.seconds[system]
        floor_s = FLOOR_SHARE * sum(seconds) / len(seconds)
        samples[name] = [
            Sample(works=works, seconds=taken, floor_s=floor_s) for works, taken in zip(blocks, seconds, strict=True)
        ]
    found = {}
    for name, (_, blocks) in nets.items():
        others = [sample for other, each in samples.items() if other != name for sample in each]
        fit = fit_coefficients(others, device=system)
        found[name] = np.array([predict(fit, works).sum() for works in blocks])
    return found


def _network_regret(
    nets: Nets, guesses: Mapping[str, Mapping[str, np.ndarray]], folder: Path
) -> dict[str, list[tuple[float, bool]]]:
    """By the system that serves: over networks and links, the device of the table being the edge.

    With each regret: whether the best cut lies inside the network, so that there is something to get wrong.
    """
    links = [read_links(folder / name) for name in ("network_stats.csv", "network_stats_wired.csv")]
    found: dict[str, list[tuple[float, bool]]] = {}
    for name, (table, _) in nets.items():
        (device,) = (system for system, tier in table.tier.items() if tier == "device")
        servers = [system for system in table.seconds if system != device]
        for server, input_bytes in itertools.product(servers, INPUTS):
            sent = np.array([input_bytes, *table.bytes], dtype=np.float64)
            pairs = [
                (each[device, server].bits_per_s, each[device, server].ping_s)
                for each in links
                if (device, server) in each
            ]
            wires = np.stack([8 * sent / rate + ping for rate, ping in (*pairs, *MORE_LINKS)])
            wires[:, -1] = 0.0  # all on the device: nothing crosses
            halves = []
            for each in (
                {key: np.array(value) for key, value in table.seconds.items()},
                {key: value[name] for key, value in guesses.items()},
            ):
                edge = np.concatenate(([0.0], np.cumsum(each[device])))
                cloud = np.concatenate((np.cumsum(each[server][::-1])[::-1], [0.0]))
                halves += [edge, cloud]
            regret = cut_regret(halves[0], halves[1], halves[2], halves[3], wires)
            best = np.argmin(halves[0] + halves[1] + wires, axis=-1)
            inside = (best > 0) & (best < len(sent) - 1)
            found.setdefault(server, []).extend(zip(regret.tolist(), inside.tolist(), strict=True))
    return found


def _median_error(true_s: np.ndarray, guess_s: np.ndarray) -> float:
    """Of what matters: layers that take more than a fifth of the mean one."""
    counted = true_s > FLOOR_SHARE * true_s.mean()
    return float(np.median(np.abs(guess_s - true_s)[counted] / true_s[counted]))


if __name__ == "__main__":
    main()
