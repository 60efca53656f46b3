import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_deploy.core.clock import ManualClock, SystemClock
from edge_deploy.core.conditions import Conditions
from edge_deploy.core.cut import ALL_CLOUD, ALL_EDGE
from edge_deploy.core.errors import BadInput
from partitioner.controller import run, train
from partitioner.cut_table import CutTable
from partitioner.live.breaker import Breaker
from partitioner.live.decide import Decide
from partitioner.live.happened import BY_CLOUD, HOW, Happened
from partitioner.live.measure import measure_table, served
from partitioner.live.record import CloudChanged, Recorder, RunStart, Tick, read_run
from partitioner.live.stage import Stage
from partitioner.live.switches import Switched, switching
from partitioner.live.warm import most_useful
from partitioner.policy import Training
from runtimes.serving.errors import CloudRefused

CUTS = (ALL_CLOUD, "001-aaaaaa", "002-bbbbbb", ALL_EDGE)


def table(cuts=CUTS):
    edge = np.linspace(0, 0.1, len(cuts))
    return CutTable(
        cuts=cuts,
        codec="raw",
        edge_s=edge,
        cloud_s=(0.1 - edge) / 10,
        encode_s=edge * 0,
        decode_s=edge * 0,
        up_bytes=np.array([200_000, 40_000, 8_000, 0])[: len(cuts)],
        down_bytes=np.array([10, 10, 10, 0])[: len(cuts)],
        edge_bytes=np.zeros(len(cuts), int),
        exit_share=edge * 0,
        crosses=np.array([cut != ALL_EDGE for cut in cuts]),
    )


def start():
    return RunStart(
        artifact="m",
        sha256="d",
        cloud="h:1",
        cuts=CUTS,
        up_bytes=(1, 2, 3, 0),
        first=ALL_EDGE,
        codec="raw",
        policy="hysteresis",
        switch="warm-standby",
        fallback_after_s=1.0,
    )


def test_the_breaker_opens_after_failures_in_a_row_and_probes_ever_more_rarely():
    breaker = Breaker(failures=3, first_s=1.0, most_s=4.0)
    assert not breaker.failed(0.0, "a")
    breaker.succeeded()
    assert [breaker.failed(0.0, "b") for _ in range(3)] == [False, False, True]
    assert breaker.is_open and not breaker.probe_due(0.9) and breaker.probe_due(1.0)
    moments, now = [], 1.0
    for _ in range(4):
        breaker.probed(now, answered=False)
        now = next(t / 10 for t in range(int(now * 10), 1000) if breaker.probe_due(t / 10))
        moments.append(now)
    assert np.diff([1.0, *moments]).tolist() == [2.0, 4.0, 4.0, 4.0]
    breaker.probed(now, answered=True)
    assert not breaker.is_open and not breaker.reason


def test_a_cloud_that_is_reachable_and_talks_nonsense_is_asked_ever_more_rarely():
    breaker = Breaker(failures=1, first_s=1.0, most_s=100.0)
    pauses, now = [], 0.0
    for _ in range(4):
        breaker.failed(now, "nonsense")
        due = next(t for t in range(1000) if breaker.probe_due(now + t))
        pauses.append(due)
        now += due
        breaker.probed(now, answered=True)
    assert pauses == [1, 2, 4, 8]
    breaker.succeeded()
    breaker.failed(now, "again")
    assert breaker.probe_due(now + 1)


@pytest.mark.parametrize("policy", ["always-best", "hysteresis", "threshold-table", "predictive", "learned", "static"])
def test_live_decisions_are_those_that_the_simulator_takes(policy):
    ticks = np.arange(60.0)
    rate = np.where((ticks // 10) % 2, 5e5, 5e7)
    told = {"uplink_bps": rate, "downlink_bps": rate, "rtt_s": np.full(60, 0.02)}
    for name in ("loss", "edge_load", "edge_memory", "cloud_load", "cloud_memory", "cloud_queue_s"):
        told[name] = np.zeros(60)
    made = train(policy, table(), Training(traces=()))
    _, wanted = run(made, ticks, told)
    decide = Decide(made, CUTS)
    found = []
    for at in range(60):
        now = Conditions(**{name: float(values[at]) for name, values in told.items()})
        found.append(decide.tick(float(at), now, (), 0.02, 1e7).cuts[0])
    if not made.sees_requests:  # the simulator asks those in another way; without requests they may learn otherwise
        assert found == [table().cuts[cut] for cut in wanted]
    assert len(set(found)) > 1 or policy in ("static", "learned")


def test_what_requests_took_reaches_policies_that_learn_from_it():
    made = train("learned", table(), Training(traces=()))
    decide = Decide(made, CUTS)
    one = Happened(1, BY_CLOUD, 0.0, 0.0, 0.03, 0.2, 1, 0.03, 0.2, 0.01, 0.02, 40_000, 1_000, 1)
    seen = decide._observation(one, 0.05, 8e5)
    assert seen.cut == 1
    assert seen.edge_s == pytest.approx(0.03)
    assert seen.cloud_s == 0.02
    assert seen.send_s == pytest.approx(0.17 - 0.02 - 0.01 - 0.05 - 0.01)
    now = Conditions(uplink_bps=1e7, downlink_bps=1e7, rtt_s=0.05)
    assert decide.tick(1.0, now, [one], 0.05, 1e7).cuts[0] in CUTS


@settings(max_examples=60, deadline=None)
@given(
    budget=st.integers(100, 260),
    way=st.sampled_from(["pause-and-reload", "load-beside", "warm-standby"]),
    moves=st.lists(st.integers(0, 3), max_size=12),
)
def test_no_way_of_switching_ever_exceeds_the_memory_budget(budget, way, moves):
    from partitioner.live.conftest import Model

    model = Model()
    stage = Stage(model.halves, model.open_half, budget_bytes=budget, kept=(ALL_EDGE,))
    stage.load(3)
    stage.running = stage.load(0)
    for index in moves:
        if 100 + model.halves[index].bytes > budget and index != 3:
            continue
        switched = switching(way).go(stage, index, ManualClock())
        assert stage.running.index == index
        assert switched.after == CUTS[index]
        assert stage.loaded_bytes <= budget
        assert stage.loaded(3) is not None
        assert stage.running.session is None or stage.running.session.is_open
        if way == "pause-and-reload":
            assert stage.loaded_bytes <= 100 + model.halves[index].bytes


@given(
    st.lists(st.tuples(st.floats(0, 10), st.integers(0, 100)), min_size=1, max_size=8),
    st.integers(0, 400),
)
def test_the_halves_that_stay_warm_fit_and_no_better_one_that_fits_is_left_out(cuts, budget):
    expected, sizes = [cut[0] for cut in cuts], [cut[1] for cut in cuts]
    kept = most_useful(expected, sizes, budget)
    used = sum(sizes[index] for index in kept)
    assert used <= budget
    left = set(range(len(cuts))) - set(kept)
    assert all(used + sizes[index] > budget for index in left)
    for index in left:  # what is better than it and kept leaves it no room
        better = sum(sizes[other] for other in kept if (expected[other], other) < (expected[index], index))
        assert better + sizes[index] > budget
    assert most_useful(expected, sizes, 0, always=(0,))[0] == 0


def test_a_half_that_cannot_be_loaded_leaves_the_old_one_in_force(model):
    def opens(half):
        if half.cut == CUTS[2]:
            raise BadInput("damaged")
        return model.open_half(half)

    for way in ("pause-and-reload", "load-beside", "warm-standby"):
        stage = Stage(model.halves, opens, budget_bytes=float("inf"))
        stage.running = stage.load(1)
        with pytest.raises(BadInput, match="damaged"):
            switching(way).go(stage, 2, ManualClock())
        assert stage.running.index == 1
        assert stage.running.run(model.feed(1))


def test_a_table_can_be_measured_without_profiles(model):
    found = measure_table(
        model.whole, model.halves, model.cloud.connect(), model.open_half, codec="raw", clock=SystemClock()
    )
    assert found.cuts == CUTS
    assert found.provenance == "measured"
    assert found.edge_s[0] == 0 and (found.edge_s[1:] > 0).all()
    assert found.cloud_s[3] == 0 and (found.cloud_s[:3] > 0).all()
    assert found.up_bytes.tolist() == [16, 16, 16, 0]
    tails = dict(model.cloud.tails)
    del tails[CUTS[1]]
    model.cloud.tails = tails
    assert [half.cut for half in served(model.halves, tuple(tails))] == [CUTS[0], CUTS[2], CUTS[3]]
    found = measure_table(
        model.whole, model.halves, model.cloud.connect(), model.open_half, codec="raw", clock=SystemClock()
    )
    assert found.cuts == (CUTS[0], CUTS[2], CUTS[3])
    with pytest.raises(CloudRefused):
        model.cloud.connect().infer({}, deadline_s=1, cut=CUTS[1])


@pytest.fixture(scope="module")
def record_file(tmp_path_factory):
    return tmp_path_factory.mktemp("record") / "run.jsonl"


MOMENTS = st.floats(0, 1e6).map(lambda value: round(value, 6))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.builds(
            Happened,
            cut=st.integers(0, 3),
            how=st.sampled_from(sorted(HOW)),
            arrived_s=MOMENTS,
            begun_s=MOMENTS,
            headed_s=MOMENTS,
            done_s=MOMENTS,
            encoded_s=MOMENTS,
            answered_s=MOMENTS,
            queue_s=MOMENTS,
            cloud_s=MOMENTS,
            up_bytes=st.integers(0, 10**9),
            down_bytes=st.integers(0, 10**9),
            attempts=st.integers(0, 2),
            reason=st.text(max_size=20),
        ),
        max_size=5,
    ),
    st.integers(0, 40),
)
def test_a_record_reads_back_what_was_written_also_when_it_was_cut_off(record_file, requests, torn):
    file = record_file
    conditions = Conditions(uplink_bps=1e6, downlink_bps=2e6, rtt_s=0.01)
    tick = Tick(at_s=0.5, conditions=conditions, cut=2, why="because", pressure=0.1)
    switched = Switched(before=CUTS[0], after=CUTS[1], way="warm-standby", took_s=0.1, stopped_s=0.01)
    recorder = Recorder(file, start())
    recorder.tick(tick)
    recorder.switch(0.6, switched)
    recorder.cloud(CloudChanged(at_s=0.7, reachable=False, reason="gone"))
    for one in requests:
        recorder.request(one, 0.0)
    recorder.close()
    found = read_run(file)
    assert found.start == start()
    assert found.requests == tuple(requests)
    assert found.ticks == (tick,)
    assert found.switches == ((0.6, switched),)
    assert not found.torn
    text = file.read_bytes()
    first = text.index(b"\n") + 1
    file.write_bytes(text[: max(first, len(text) - torn)])
    again = read_run(file)
    assert again.requests == tuple(requests)[: len(again.requests)]
    assert again.torn == (not file.read_bytes().endswith(b"\n"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no line of kind start"),
        ("{}\n", "line 1: is no line of a record"),
        ("[1]\n", "line 1: is no line of a record"),
        ('{"kind":"start","version":7}\n', "a record of version 7; this program reads 1"),
        ('{"kind":"other"}\n', "unknown kind 'other'"),
    ],
)
def test_what_is_no_record_is_refused(tmp_path, text, told):
    file = tmp_path / "run.jsonl"
    file.write_text(text)
    with pytest.raises(BadInput, match=told):
        read_run(file)
    with pytest.raises(BadInput, match="cannot be read"):
        read_run(tmp_path / "none")
