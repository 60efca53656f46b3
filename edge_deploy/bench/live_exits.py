"""Part of `make bench-live`: a CNN with two exits, trained here, quantized for both formats, fitted, and run live.

Of 4,000 CIFAR-10 images 3,000 train, 500 fit the thresholds, 500 judge them: a small set and a small net, so that what
counts is the difference between the exits and the end, and not the accuracy itself.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_deploy.api.convert import convert
from edge_deploy.api.exits import ExitPoint, ExitsFitted, fit_exits
from edge_deploy.api.request import convert_request
from edge_deploy.api.run import RunRequest, inputs_of, live
from edge_deploy.api.split import split
from edge_deploy.bench.live_rig import HOME, ServerProcess
from edge_deploy.bench.models import development_data
from edge_deploy.core.cut import ALL_CLOUD
from edge_deploy.core.require import require
from edge_deploy.core.tensor import TensorInfo
from edge_deploy.zoo.datasets import open_dataset
from edge_deploy.zoo.description import find_description
from edge_deploy.zoo.two_exit_cnn import train_two_exits
from partitioner.live.options import LiveOptions
from runtimes.folder import read_artifact
from runtimes.serving.contracts import Endpoint
from runtimes.shaping.link import constant_link
from runtimes.shaping.proxy import ShapedProxy

__all__ = ["measure_exits"]

EPOCHS = 18
TRAIN, FIT = 3000, 500
LIVE = 200
MAX_DROP = 0.01
SHARES = (0.5, 0.8)  # of the requests, to end at the exit
LINK = constant_link(uplink_bps=5e6, downlink_bps=20e6, rtt_s=0.04)
SHOWN = (0.05, 0.25, 0.5, 1.0, 2.0, 4.0, 20.0)


def measure_exits(*, epochs: int = EPOCHS) -> dict[str, Any]:
    """By format: the fitted threshold, accuracy against bytes and work; live accuracy, latency and bytes by share."""
    development_data()
    home = HOME / "exits"
    home.mkdir(parents=True, exist_ok=True)
    _train(home, epochs)
    convert(
        convert_request(
            "edge_deploy.zoo.two_exit_cnn:two_exit_cnn",
            weights=str(home / "weights.pt"),
            inputs=["image:1,3,32,32"],
            to=["tflite", "executorch"],
            precision=["int8"],
            calibrate=str(home / "calibrate.npz"),
            out=str(home / "artifacts"),
            force=True,
        )
    )
    return {each.name: _format(each, home) for each in sorted((home / "artifacts").glob("*-int8"))}


def _train(home: Path, epochs: int) -> None:
    torch = require("torch", extra="run-executorch")
    if (home / "weights.pt").exists():
        return
    wanted = (TensorInfo(name="image", shape=(1, 3, 32, 32), dtype="float32"),)
    samples = list(open_dataset(find_description(Path("cifar10_train4k_normalised")), inputs=wanted))
    order = np.random.default_rng(0).permutation(len(samples))
    images = np.stack([samples[place].inputs["image"] for place in order]).astype(np.float32)
    labels = np.array([samples[place].label for place in order]).astype(np.int64)
    model = train_two_exits(images[:TRAIN], labels[:TRAIN], epochs=epochs)
    np.savez(home / "calibrate.npz", x=images[:200])
    np.savez(home / "fit.npz", x=images[TRAIN : TRAIN + FIT], y=labels[TRAIN : TRAIN + FIT])
    np.savez(home / "judge.npz", x=images[TRAIN + FIT :], y=labels[TRAIN + FIT :])
    torch.save(model.state_dict(), home / "weights.pt")


def _format(artifact: Path, home: Path) -> dict[str, Any]:
    found = fit_exits(artifact, home / "fit.npz", evaluate=home / "judge.npz", max_drop=MAX_DROP)
    halves = home / "halves" / artifact.name / found.cut
    if not halves.is_dir():
        split(artifact, cuts=[ALL_CLOUD, found.cut], out=halves)
    live_rows = []
    for share in (None, 0.0, *SHARES):
        # None: as fitted above, which is what the manifest has.
        fitted = found if share is None else fit_exits(artifact, home / "fit.npz", share=share)
        wanted = f"accuracy down by at most {MAX_DROP:.0%}" if share is None else f"{share:.0%} at the exit"
        live_rows.append({"wanted": wanted, "threshold": _digits(fitted)} | _run(artifact, halves, home, found.cut))
    fit_exits(artifact, home / "fit.npz", max_drop=MAX_DROP)
    return {
        "threshold": _digits(found),
        "fit": _point(found.chosen) | {"end_alone": found.accuracy},
        "held out": _point(found.held_out) | {"end_alone": found.held_out_accuracy},
        "cut": found.cut,
        "bytes_up": found.cut_bytes,
        "curve": [_point(point) for point in _shown(found)],
        "live": live_rows,
    }


def _run(artifact: Path, halves: Path, home: Path, cut: str) -> dict[str, Any]:
    """Requests over a shaped link, one after the other, with the thresholds that the manifest has now."""
    feeds = list(inputs_of(artifact, home / "judge.npz"))[:LIVE]
    labels = np.load(home / "judge.npz")["y"][:LIVE]
    name = read_artifact(artifact).exits[0].answer
    seconds, right = [], 0
    with ServerProcess(halves) as server, ShapedProxy(("127.0.0.1", server.port), LINK) as proxy:
        host, port = proxy.address
        request = RunRequest(
            artifact=artifact,
            cloud=Endpoint(host=host, port=port),
            halves=halves,
            cut=cut,
            options=LiveOptions(probe_idle_s=float("inf")),
        )
        with live(request) as session:
            session.infer(feeds[0])  # connects
            before = session.settled_status()
            for feed, label in zip(feeds, labels, strict=True):
                begun = time.perf_counter()
                answer = session.infer(feed)
                seconds.append(time.perf_counter() - begun)
                right += int(answer[name].argmax() == label)
            status = session.settled_status()
    answered = {how: count - before.answered[how] for how, count in status.answered.items()}
    return {
        "requests": len(feeds),
        "on the edge": answered["edge"],
        "by the cloud": answered["cloud"],
        "fell back": answered["fallback"],
        "accuracy": right / len(feeds),
        "mean_ms": round(float(np.mean(seconds)) * 1e3, 2),
        "p50_ms": round(float(np.median(seconds)) * 1e3, 2),
        "p95_ms": round(float(np.percentile(seconds, 95)) * 1e3, 2),
        "bytes_up_each": round((status.up_bytes - before.up_bytes) / len(feeds)),
    }


def _digits(found: ExitsFitted) -> float:
    return round(found.exits[0].threshold, 4)


def _point(point: ExitPoint | None) -> dict[str, Any]:
    if point is None:
        return {}
    return {
        "q": round(point.q, 3),
        "shares": [round(each, 3) for each in point.shares],
        "accuracy": point.accuracy,
        "agreement": round(point.agreement, 4),
        "mean_bytes": round(point.mean_bytes),
        "mean_macs": round(point.mean_macs),
    }


def _shown(found: ExitsFitted) -> Sequence[ExitPoint]:
    return [min(found.curve, key=lambda point: abs(np.log(point.q / q))) for q in SHOWN]
