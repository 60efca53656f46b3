import asyncio
import contextlib
import random
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from edge_deploy.core.cut import ALL_CLOUD, ALL_EDGE
from edge_deploy.core.errors import BadInput
from partitioner.live.asynchronous import AsyncLiveSession
from partitioner.live.errors import Cancelled, DeadlineMissed
from partitioner.live.options import LiveOptions
from partitioner.live.record import Recorder, RunStart, read_run
from partitioner.live.session import LiveSession
from partitioner.setting import Setting
from runtimes.serving.contracts import Cancellation
from runtimes.serving.errors import CloudGarbled, CloudGone, CloudOverloaded, CloudRefused, CloudTimedOut

CUT = "001-aaaaaa"
PATIENT = LiveOptions(setting=Setting(fallback_after_s=30.0, tick_s=0.1), probe_idle_s=float("inf"))


def open_live(model, *, first=CUT, options=PATIENT, **more):
    return LiveSession(
        model.whole, model.halves, model.cloud.connect, model.open_half, first=first, options=options, **more
    )


def is_right(model, live, number):
    return (live.infer(model.feed(number))["y"] == model.answer(number)).all()


def waits_for(what):
    """Nothing may hang for ever; what is waited for comes within a fraction of a second."""
    until = time.monotonic() + 60
    while not what():
        assert time.monotonic() < until
        time.sleep(0.01)


def start_of(model):
    return RunStart(
        artifact="model",
        sha256=model.whole.sha256,
        cloud="here",
        cuts=tuple(half.cut for half in model.halves),
        up_bytes=(16, 16, 16, 0),
        first=CUT,
        codec="raw",
        policy=f"fixed:{CUT}",
        switch="warm-standby",
        fallback_after_s=1.0,
    )


def test_every_cut_gives_the_answer_of_the_whole(model):
    with open_live(model) as live:
        for half in model.halves:
            live.switch_to(half.cut)
            assert is_right(model, live, 5)
        status = live.settled_status()
    assert status.by_cut == {half.cut: 1 for half in model.halves}
    assert status.answered == {"edge": 1, "cloud": 3, "fallback": 0, "lost": 0}


@pytest.mark.parametrize("way", ["pause-and-reload", "load-beside", "warm-standby"])
def test_requests_of_many_threads_are_answered_once_each_while_the_cut_moves(model, way):
    options = LiveOptions(setting=PATIENT.setting, switch=way, memory_bytes=200, probe_idle_s=float("inf"))
    with open_live(model, options=options) as live, ThreadPoolExecutor(4) as threads:
        ends = threading.Event()

        def move():
            while not ends.is_set():
                for half in model.halves:
                    live.switch_to(half.cut)

        mover = threading.Thread(target=move)
        mover.start()
        right = list(threads.map(lambda number: is_right(model, live, number), range(400)))
        ends.set()
        mover.join()
        status = live.settled_status()
    assert all(right)
    assert sum(status.answered.values()) == 400
    assert status.answered["lost"] == 0
    assert status.switches > 0


@pytest.mark.parametrize("seed", range(3))
def test_whatever_goes_wrong_in_whatever_order_every_request_has_one_right_answer(model, tmp_path, seed):
    rng = random.Random(seed)
    kinds = (CloudGone, CloudTimedOut, CloudOverloaded, CloudRefused, CloudGarbled, None, None, None)
    spoilt = (lambda found: {}, lambda found: {"y": found["y"] * np.inf}, lambda found: found, lambda found: found)

    def fails(number):
        kind = rng.choice(kinds)
        return kind("random") if kind is not None else None

    model.cloud.fails, model.cloud.spoils = fails, lambda found: rng.choice(spoilt)(found)
    file = tmp_path / "run.jsonl"
    recorder = Recorder(file, start_of(model))
    with open_live(model, recorder=recorder) as live, ThreadPoolExecutor(8) as threads:

        def ask(number):
            if number % 10 == 0:
                live.switch_to(model.halves[number // 10 % 4].cut)
            return is_right(model, live, number)

        right = list(threads.map(ask, range(500)))
        told = live.settled_status().answered
    assert all(right)
    assert told["lost"] == 0 and sum(told.values()) == len(read_run(file).requests) == 500


@pytest.mark.parametrize("error", [CloudGone, CloudTimedOut, CloudOverloaded, CloudRefused, CloudGarbled])
def test_whatever_the_cloud_says_the_edge_answers(model, error):
    with open_live(model) as live:
        model.cloud.fails = lambda number: error("no")
        assert is_right(model, live, 7)
        status = live.settled_status()
    assert status.answered["fallback"] == 1
    assert status.last_reason == f"{error.__name__}: no"


@pytest.mark.parametrize(
    ("spoils", "told"),
    [
        (lambda found: {}, "output y is missing"),
        (lambda found: {"y": found["y"][:, :2]}, r"output y has shape \(1, 2\), must be \(1, 4\)"),
        (lambda found: {"y": found["y"].astype(np.float64)}, "output y has type float64, must be float32"),
        (lambda found: {"y": found["y"] * np.nan}, "output y holds NaN or infinity"),
    ],
)
def test_an_answer_that_is_none_is_not_given_to_the_caller(model, spoils, told):
    with open_live(model) as live:
        model.cloud.spoils = spoils
        assert is_right(model, live, 7)
        status = live.settled_status()
    assert status.answered["fallback"] == 1
    assert re.search(told, status.last_reason)


def test_a_connection_that_breaks_is_replaced_and_the_request_tried_again(model):
    with open_live(model) as live:
        before, broken = model.cloud.connections, model.cloud.calls + 1
        model.cloud.fails = lambda number: CloudGone("reset") if number == broken else None
        assert is_right(model, live, 7)
        status = live.settled_status()
    assert model.cloud.connections == before + 1
    assert status.answered["cloud"] == 1
    assert status.attempts == 2


def test_after_some_failures_nobody_waits_for_the_cloud_until_it_is_back(model):
    with open_live(model) as live:
        model.cloud.fails = lambda number: CloudTimedOut("slow")
        for number in range(3):
            assert is_right(model, live, number)
        waits_for(lambda: live.status.cloud != "reachable")
        assert "slow" in live.status.cloud
        asked = model.cloud.calls
        assert all(is_right(model, live, number) for number in range(50))
        assert model.cloud.calls < asked + 50  # probes only
        model.cloud.fails = None
        waits_for(lambda: live.status.cloud == "reachable")
        assert is_right(model, live, 9)
        assert live.settled_status().answered["cloud"] == 1


def test_a_cloud_with_another_version_is_not_used_until_it_has_this_one(model):
    model.cloud.digest = "e" * 64
    with open_live(model) as live:
        assert is_right(model, live, 1)
        assert "both sides need the same artifact" in live.status.cloud
        model.cloud.digest = model.whole.sha256
        waits_for(lambda: live.status.cloud == "reachable")
        assert is_right(model, live, 2)
        assert live.settled_status().answered == {"edge": 0, "cloud": 1, "fallback": 1, "lost": 0}


def test_a_server_that_cannot_list_its_models_is_asked_for_one_of_them(model):
    model.cloud.lists = False
    with open_live(model) as live:
        assert is_right(model, live, 1)
        assert live.settled_status().answered["cloud"] == 1
    model.cloud.digest = "e" * 64
    with open_live(model) as live:
        assert is_right(model, live, 1)
        assert live.settled_status().answered["fallback"] == 1


def test_inputs_that_are_not_the_models_are_the_callers_mistake_and_not_the_clouds(model):
    with open_live(model) as live:
        for cut in (ALL_CLOUD, CUT, ALL_EDGE):
            live.switch_to(cut)
            with pytest.raises(BadInput, match=r"input x: shape \(2, 4\)"):
                live.infer({"x": np.zeros((2, 4), np.float32)})
        assert live.status.cloud == "reachable"


def test_without_room_for_the_whole_model_errors_of_the_cloud_reach_the_caller(model):
    options = LiveOptions(setting=PATIENT.setting, memory_bytes=40, probe_idle_s=float("inf"))
    with open_live(model, options=options) as live:
        assert is_right(model, live, 1)
        model.cloud.fails = lambda number: CloudGone("no")
        with pytest.raises(CloudGone):
            live.infer(model.feed(2))
        assert live.settled_status().answered["lost"] == 1
    with pytest.raises(CloudGone):
        open_live(model, options=options)


def test_an_answer_after_the_deadline_is_an_error_and_counts_as_lost(model):
    with open_live(model) as live:
        for cut in (CUT, ALL_EDGE):
            live.switch_to(cut)
            with pytest.raises(DeadlineMissed, match="late for the request's deadline"):
                live.infer(model.feed(1), deadline_s=1e-9)
        assert live.settled_status().answered["lost"] == 2
        assert (live.infer(model.feed(1), deadline_s=60)["y"] == model.answer(1)).all()


def test_requests_in_a_hurry_do_not_open_the_breaker(model):
    with open_live(model) as live:
        for _ in range(5):
            with pytest.raises(DeadlineMissed):
                live.infer(model.feed(1), deadline_s=1e-9)
        model.cloud.fails = lambda number: CloudTimedOut("too short")
        for number in range(5):
            with contextlib.suppress(DeadlineMissed):  # on a machine that stood still meanwhile
                assert (live.infer(model.feed(number), deadline_s=0.9)["y"] == model.answer(number)).all()
        model.cloud.fails = None
        assert live.settled_status().cloud == "reachable"


def test_a_request_that_is_cancelled_ends_with_that(model):
    with open_live(model) as live:
        cancel = Cancellation()

        def asks(number):
            cancel.ask()
            return CloudGone("cancelled")

        model.cloud.fails = asks
        with pytest.raises(Cancelled):
            live.infer(model.feed(1), cancel=cancel)
        model.cloud.fails = None
        live.switch_to(ALL_EDGE)
        with pytest.raises(Cancelled):
            live.infer(model.feed(1), cancel=cancel)
        assert live.settled_status().answered["lost"] == 2


def test_the_memory_budget_decides_which_halves_stay_warm(model):
    from partitioner.controller import train
    from partitioner.live.decide import Decide
    from partitioner.live.parts_test import table
    from partitioner.policy import Training

    cuts = [half.cut for half in model.halves]
    policy = train("fixed:all-cloud", table(tuple(cuts)), Training(traces=()))
    for budget, warm in ((1000, cuts), (135, [cuts[0], cuts[1], cuts[3]]), (100, [cuts[0], cuts[3]])):
        options = LiveOptions(setting=PATIENT.setting, memory_bytes=budget, probe_idle_s=float("inf"))
        with open_live(model, first=ALL_CLOUD, options=options, decide=Decide(policy, cuts)) as live:
            assert list(live.status.warm) == warm
            for cut in cuts:
                if budget == 1000 or cut in warm:
                    live.switch_to(cut)
                    assert is_right(model, live, 3)


def test_it_is_told_where_the_cloud_computes_otherwise(model):
    with open_live(model) as live:
        assert {(one.cut, one.identical, one.largest) for one in live.agreement(model.feed(3))} == {
            (cut, True, 0.0) for cut in (ALL_CLOUD, CUT, "002-bbbbbb")
        }
        model.cloud.spoils = lambda found: {"y": found["y"] + np.float32(0.5)}
        assert {(one.identical, one.largest) for one in live.agreement(model.feed(3))} == {(False, 0.5)}
        model.cloud.fails = lambda number: CloudRefused("no such tail")
        assert {one.failed for one in live.agreement(model.feed(3))} == {"no such tail"}


def test_when_the_record_cannot_be_written_requests_go_on_and_closing_tells(model, tmp_path):
    class Full(Recorder):
        def request(self, one, start_s):
            raise OSError("no space left on device")

    live = open_live(model, recorder=Full(tmp_path / "run.jsonl", start_of(model)))
    assert is_right(model, live, 1)
    waits_for(lambda: "no space left" in live.status.why)
    assert is_right(model, live, 2)
    with pytest.raises(OSError, match="no space left"):
        live.close()
    with pytest.raises(BadInput, match="closed"):
        live.infer(model.feed(1))


def test_a_closed_session_says_so(model):
    live = open_live(model)
    live.close()
    live.close()
    with pytest.raises(BadInput, match="closed"):
        live.infer(model.feed(1))


def test_the_record_holds_every_request_and_every_switch(model, tmp_path):
    file = tmp_path / "run.jsonl"
    with open_live(model, recorder=Recorder(file, start_of(model))) as live:
        for number in range(20):
            live.switch_to(model.halves[number % 4].cut)
            live.infer(model.feed(number))
        model.cloud.fails = lambda number: CloudRefused("gone for good")
        live.switch_to(CUT)
        live.infer(model.feed(1))
        waits_for(lambda: live.status.cloud != "reachable")
    run = read_run(file)
    assert [one.cut for one in run.requests] == [number % 4 for number in range(20)] + [1]
    assert all(one.arrived_s <= one.begun_s <= one.headed_s <= one.done_s for one in run.requests)
    assert run.requests[-1].reason == "CloudRefused: gone for good"
    assert len(run.switches) == 21
    assert run.ticks
    assert [changed.reachable for changed in run.cloud][:1] == [False]


def test_awaited_requests_are_answered_side_by_side(model):
    async def go():
        async with AsyncLiveSession(lambda: open_live(model)) as live:
            found = await asyncio.gather(*(live.infer(model.feed(number)) for number in range(40)))
            return [(one["y"] == model.answer(number)).all() for number, one in enumerate(found)]

    assert all(asyncio.run(go()))


def test_cancelling_a_task_gives_up_its_request(model):
    entered, goes_on = threading.Event(), threading.Event()

    def waits(number):
        entered.set()
        goes_on.wait(60)
        return CloudGone("cancelled")

    async def go():
        async with AsyncLiveSession(lambda: open_live(model)) as live:
            model.cloud.fails = waits
            task = asyncio.create_task(live.infer(model.feed(1)))
            await asyncio.to_thread(entered.wait, 60)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            goes_on.set()
            model.cloud.fails = None

    asyncio.run(go())


def test_the_policy_goes_to_the_edge_when_the_cloud_goes_and_back_when_it_comes_back(model):
    from partitioner.controller import train
    from partitioner.live.decide import Decide
    from partitioner.live.parts_test import table
    from partitioner.policy import Training

    policy = train("always-best", table(tuple(half.cut for half in model.halves)), Training(traces=()))
    with open_live(model, first=ALL_EDGE, decide=Decide(policy, [half.cut for half in model.halves])) as live:
        waits_for(lambda: live.infer(model.feed(1)) and live.status.cut != ALL_EDGE)
        model.cloud.fails = lambda number: CloudGone("no")
        waits_for(lambda: is_right(model, live, 2) and live.status.cut == ALL_EDGE)
        assert live.status.conditions.uplink_bps == 0
        model.cloud.fails = None
        waits_for(lambda: is_right(model, live, 3) and live.status.cut != ALL_EDGE)
        assert live.settled_status().answered["lost"] == 0
