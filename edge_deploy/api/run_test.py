"""Live sessions end to end: artifacts of both formats, a real server, a shaped link, records looked at."""

import json
import time
from pathlib import Path

import numpy as np
import pytest

import edge_deploy
from edge_deploy.api.replay import LIVE, replay
from edge_deploy.api.run import RunRequest, inputs_of, live
from edge_deploy.core.cut import ALL_CLOUD, ALL_EDGE
from edge_deploy.core.errors import BadInput
from partitioner.live.options import LiveOptions
from partitioner.live.record import read_run
from partitioner.setting import Setting
from runtimes.serving.contracts import Endpoint
from runtimes.session import open_session

pytest.importorskip("grpc")
PATIENT = LiveOptions(setting=Setting(fallback_after_s=60.0, tick_s=0.2), probe_idle_s=float("inf"))


class Made:
    """An artifact, its halves, and a server that has its tails."""

    def __init__(self, artifact: Path, halves: Path, port: int):
        self.artifact, self.halves, self.port = artifact, halves, port
        self.feeds = tuple(inputs_of(artifact, halves.parent / "x.npz"))
        whole = open_session(artifact)
        self.answers = tuple(whole.run(feed) for feed in self.feeds)
        whole.close()

    def request(self, **changes):
        cloud = Endpoint(host="127.0.0.1", port=self.port)
        given = {"artifact": self.artifact, "halves": self.halves, "options": PATIENT, "cloud": cloud}
        return RunRequest(**{**given, **changes})

    def all_right(self, session):
        found = [session.infer(feed) for feed in self.feeds]
        return all(
            np.array_equal(answer[name], wanted[name])
            for answer, wanted in zip(found, self.answers, strict=True)
            for name in wanted
        )


@pytest.fixture(scope="module", params=["tflite", "executorch"])
def made(request, tmp_path_factory):
    pytest.importorskip("ai_edge_litert")
    pytest.importorskip("executorch")
    from runtimes.serving.server import ServerThread, Serving

    folder = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    np.savez(folder / "x.npz", x=rng.normal(size=(12, 1, 8, 8)).astype(np.float32))
    np.savez(folder / "calibrate.npz", x=rng.normal(size=(64, 1, 8, 8)).astype(np.float32))
    asked = edge_deploy.convert_request(
        "edge_deploy.zoo.small_cnn:small_cnn",
        inputs=["image:1,1,8,8"],
        to=[request.param],
        precision=["int8"],
        calibrate=folder / "calibrate.npz",
        out=folder / "out",
    )
    artifact = edge_deploy.convert(asked).folder / f"{request.param}-int8"
    legal = [each.cut.id for each in edge_deploy.list_cuts(artifact).cuts if not each.refused]
    if request.param == "executorch":  # every cut of a program is two lowerings
        legal = [legal[0], legal[len(legal) // 2], legal[-1]]
    edge_deploy.split(artifact, cuts=legal, out=folder / "halves", check=False)
    with ServerThread(Serving(artifacts=(folder / "halves",))) as server:
        yield Made(artifact, folder / "halves", server.port)


def test_every_cut_of_both_formats_gives_the_bits_of_the_whole(made):
    with live(made.request(cut=ALL_CLOUD)) as session:
        cuts = [path.name for path in made.halves.iterdir()]
        assert len(cuts) >= 3
        for cut in cuts:
            session.switch_to(cut)
            assert made.all_right(session), cut
        told = session.settled_status()
    assert told.answered == {
        "edge": len(made.feeds),
        "cloud": len(made.feeds) * (len(cuts) - 1),
        "fallback": 0,
        "lost": 0,
    }
    assert told.up_bytes > 0


def test_a_policy_decides_from_halves_that_were_timed_and_the_record_can_be_looked_at(made, tmp_path):
    record = tmp_path / "run.jsonl"
    with live(made.request(policy="always-best", record=record)) as session:
        assert made.all_right(session)
        for cut in [path.name for path in made.halves.iterdir()]:
            session.switch_to(cut)
            assert made.all_right(session)
    run = read_run(record)
    assert len(run.requests) == len(made.feeds) * (1 + len(list(made.halves.iterdir())))
    assert run.start.table is not None and set(run.start.table.cuts) >= {ALL_EDGE, ALL_CLOUD}
    found = replay(record, tmp_path / "out")
    assert found.compared.score(LIVE).requests == len(run.requests)
    assert found.compared.score("oracle").mean_s > 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "live run" in page and "The live run took" in page
    check_trace(json.loads((tmp_path / "out" / "trace.json").read_text()), run)


def check_trace(trace, run):
    """Lanes are there, every request is on them, and events of one thread do not overlap."""
    events = trace["traceEvents"]
    names = {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert set(names.values()) == {"edge", "wire", "cloud", "controller"}
    spans = [event for event in events if event["ph"] == "X"]
    heads = [event for event in spans if event["name"] == "head"]
    assert sorted(event["args"]["request"] for event in heads) == list(range(1, len(run.requests) + 1))
    by_cloud = sum(one.how == 2 for one in run.requests)
    assert sum(event["name"] == "tail" for event in spans) == by_cloud
    assert sum(event["name"] == "round trip" for event in spans) == by_cloud
    ends = {}
    for event in sorted(spans, key=lambda event: event["ts"]):
        if names[event["pid"]] == "controller":
            continue
        thread = (event["pid"], event["tid"])
        assert event["ts"] >= ends.get(thread, 0) - 0.002  # microseconds are written with three places
        ends[thread] = event["ts"] + event["dur"]


def test_over_a_shaped_link_the_edge_answers_when_connections_are_reset_and_the_cloud_once_they_are_back(made):
    from runtimes.shaping.link import ShapedLink, constant_link
    from runtimes.shaping.proxy import ShapedProxy

    up = constant_link(uplink_bps=1e8, downlink_bps=1e8, rtt_s=0.002)
    down = ShapedLink(uplink_bps=(0.0,), downlink_bps=(0.0,), on_outage="reset")
    with ShapedProxy(("127.0.0.1", made.port), up) as proxy:
        endpoint = Endpoint(host=proxy.address[0], port=proxy.address[1])
        with live(made.request(cloud=endpoint, cut=ALL_CLOUD)) as session:
            assert made.all_right(session)
            before = session.settled_status().answered
            proxy.follow(down)
            assert made.all_right(session)
            gone = session.settled_status().answered
            proxy.follow(up)
            until = time.monotonic() + 60
            told = gone
            while told["cloud"] == gone["cloud"] and time.monotonic() < until:
                assert made.all_right(session)
                told = session.settled_status().answered
    assert before["cloud"] > 0
    assert gone["fallback"] - before["fallback"] == len(made.feeds)
    assert told["cloud"] > gone["cloud"]
    assert told["lost"] == 0


def test_halves_of_another_model_are_refused(made, tmp_path):
    from runtimes.folder import read_artifact

    cut = next(path for path in made.halves.iterdir() if path.name not in (ALL_CLOUD, ALL_EDGE))
    half = read_artifact(cut / "head")
    text = (cut / "head" / "manifest.json").read_text()
    other = tmp_path / "halves" / cut.name / "head"
    other.mkdir(parents=True)
    (other / "manifest.json").write_text(text.replace(half.split.parent_digest, "0" * 64))
    with pytest.raises(BadInput, match="split this one"):
        live(made.request(halves=tmp_path / "halves"))
    with pytest.raises(BadInput, match="there is no half for it here"):
        live(made.request(cut="007-nonono"))


def test_without_a_cloud_everything_is_answered_here(made):
    with live(made.request(cloud=Endpoint(host="127.0.0.1", port=1))) as session:
        assert made.all_right(session)
        told = session.settled_status()
    assert told.answered["edge"] == len(made.feeds)
    assert told.cloud.startswith("CloudGone")
