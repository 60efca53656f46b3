"""Requests that are sure at an early exit end there, and only there."""

from pathlib import Path

import numpy as np
import pytest

from edge_deploy.core.artifact import Signature
from edge_deploy.core.cut import ALL_CLOUD, ALL_EDGE
from edge_deploy.core.early_exit import EarlyExit, confidence, meaning_of
from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo
from partitioner.live.errors import DeadlineMissed
from partitioner.live.exits import exit_share
from partitioner.live.halves import EdgeHalf, Whole
from partitioner.live.options import LiveOptions
from partitioner.live.pretend import PretendCloud
from partitioner.live.record import Recorder, RunStart, read_run
from partitioner.live.session import LiveSession

CUT = "001-aaaaaa"
X = TensorInfo(name="x", shape=(1, 2), dtype="float32")
EARLY = TensorInfo(name="early", shape=(1, 2), dtype="float32")
LATE = TensorInfo(name="late", shape=(1, 2), dtype="float32")
EXIT = EarlyExit(output="early", answer="late", threshold=0.9, meaning="logit", share=0.5)


class Session:
    kernels = "NumPy"

    def __init__(self, outputs):
        self.signature = Signature(name="main", inputs=(X,), outputs=outputs)

    def run(self, inputs):
        # The exit is as sure as the input is far from even; the end says the opposite, so that they are told apart.
        made = {"early": inputs["x"] * 2, "late": -inputs["x"]}
        return {info.name: made[info.name].astype(info.dtype) for info in self.signature.outputs}

    def layer_seconds(self, inputs, *, runs):
        return None

    def close(self):
        pass


def opened(exits=(EXIT,), early=EARLY, late=LATE, first=CUT, record=None, **options):
    signature = Signature(name="main", inputs=(X,), outputs=(early, late))
    whole = Whole(path=Path("m"), name="m", sha256="d" * 64, signature=signature, bytes=9, exits=exits)
    head = Signature(name="main", inputs=(X,), outputs=(early,))
    halves = (
        EdgeHalf(cut=ALL_CLOUD, head=None, signature=None, up=(X,), down=(early, late), bytes=0),
        EdgeHalf(cut=CUT, head=Path("h"), signature=head, up=(X,), down=(late,), bytes=3),
        EdgeHalf(cut=ALL_EDGE, head=Path("m"), signature=signature, up=(), down=(), bytes=9),
    )
    cloud = PretendCloud(tails={CUT: Session((late,)).run, ALL_CLOUD: Session((early, late)).run}, digest="d" * 64)
    recorder = None
    if record is not None:
        start = RunStart(
            artifact="m",
            sha256="d",
            cloud="here",
            cuts=tuple(half.cut for half in halves),
            up_bytes=(8, 8, 0),
            first=first,
            codec="raw",
            policy="fixed",
            switch="warm-standby",
            fallback_after_s=1.0,
        )
        recorder = Recorder(record, start)
    session = LiveSession(
        whole,
        halves,
        cloud.connect,
        lambda half: Session(half.signature.outputs),
        first=first,
        options=LiveOptions(**options),
        recorder=recorder,
    )
    return session, cloud, whole, halves


def feed(far):
    return {"x": np.array([[far, -far]], np.float32)}


def test_a_sure_request_ends_on_the_edge_with_the_exits_values_in_place_of_the_ends(tmp_path):
    session, cloud, _, _ = opened(record=tmp_path / "run.jsonl")
    with session:
        before = cloud.calls
        sure = session.infer(feed(3.0))
        assert cloud.calls == before
        np.testing.assert_array_equal(sure["late"], [[6.0, -6.0]])
        np.testing.assert_array_equal(sure["early"], sure["late"])
        unsure = session.infer(feed(0.1))
        np.testing.assert_array_equal(unsure["late"], np.array([[-0.1, 0.1]], np.float32))
        assert session.settled_status().answered == {"edge": 1, "cloud": 1, "fallback": 0, "lost": 0}
    assert [one.reason for one in read_run(tmp_path / "run.jsonl").requests] == ["exit early", ""]


def test_a_deadline_holds_at_an_exit_too():
    session, _, _, _ = opened()
    with session, pytest.raises(DeadlineMissed):
        session.infer(feed(3.0), deadline_s=0.0)


def test_without_exits_and_at_other_cuts_nothing_ends_early():
    for exits, first in (((), CUT), ((EXIT,), ALL_CLOUD), ((EXIT,), ALL_EDGE)):
        session, _, _, _ = opened(exits=exits, first=first)
        with session:
            np.testing.assert_array_equal(session.infer(feed(3.0))["late"], [[-3.0, 3.0]])


def test_a_quantized_exit_answers_in_the_scale_of_the_end():
    early = TensorInfo(name="early", shape=(1, 2), dtype="int8", scale=(0.5,), zero_point=(0,))
    late = TensorInfo(name="late", shape=(1, 2), dtype="int8", scale=(0.25,), zero_point=(-10,))
    session, _, _, _ = opened(early=early, late=late)
    with session:
        found = session.infer(feed(4.0))  # the exit says 8 and -8, of half a unit each
    np.testing.assert_array_equal(found["late"], np.array([[6, -26]], np.int8))


def test_tables_know_which_cuts_have_the_exit():
    _, _, whole, halves = opened()
    assert [exit_share(whole, half) for half in halves] == [0.0, 0.5, 0.0]


def test_confidence_is_the_likelier_class_whatever_the_scores_are():
    logits = np.array([[2.0, 0.0], [-1.0, 1.0]])
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(confidence(logits, "logit"), confidence(softmax, "probability"))
    np.testing.assert_allclose(confidence(np.array([[0.0], [-3.0]]), "logit"), [0.5, 1 / (1 + np.exp(-3.0))])
    assert meaning_of(softmax) == "probability" and meaning_of(logits) == "logit"
    assert not np.isnan(confidence(np.array([[1e4, -1e4]]), "logit")).any()
    with pytest.raises(BadInput, match="threshold"):
        EarlyExit(output="a", answer="b", threshold=float("nan"), meaning="logit")
