from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from edge_deploy.core.conditions import CONDITION_FIELDS, Trace
from edge_deploy.core.errors import BadInput
from partitioner.controller import decide, observe, run, train
from partitioner.cost import cost
from partitioner.cut_table import CutTable
from partitioner.measured import measured, tick_times
from partitioner.policy import Training
from partitioner.realised import realised_s
from partitioner.setting import Setting, queueing_s
from partitioner.simulator.arrivals import periodic, poisson, read_arrivals
from partitioner.simulator.compiled import can_compile
from partitioner.simulator.kernel import BY_CLOUD, FELL_BACK, ON_EDGE
from partitioner.simulator.simulate import PARTS, simulate, simulate_decisions
from partitioner.simulator.world import World


def three_cuts(**changes) -> CutTable:
    """All-cloud sends 60 kB, the middle 12 kB, all-edge nothing."""
    values = {
        "cuts": ("all-cloud", "003-abcdef", "all-edge"),
        "codec": "raw",
        "edge_s": np.array([0.0, 0.05, 0.2]),
        "cloud_s": np.array([0.02, 0.015, 0.0]),
        "encode_s": np.array([0.0, 0.001, 0.0]),
        "decode_s": np.array([0.0, 0.001, 0.0]),
        "up_bytes": np.array([60_000, 12_000, 0]),
        "down_bytes": np.array([400, 400, 0]),
        "edge_bytes": np.zeros(3),
        "exit_share": np.zeros(3),
        "crosses": np.array([True, True, False]),
    }
    return CutTable(**{**values, **changes})


def trace_of(uplink_bps, *, step_s=1.0, **others) -> Trace:
    uplink = np.asarray(uplink_bps, dtype=float)
    values = {name: np.zeros(len(uplink)) for name in CONDITION_FIELDS}
    values |= {"uplink_bps": uplink, "downlink_bps": np.full(len(uplink), 10e6), "rtt_s": np.full(len(uplink), 0.03)}
    values |= {name: np.broadcast_to(np.asarray(v, dtype=float), len(uplink)).copy() for name, v in others.items()}
    return Trace(time_s=np.arange(len(uplink)) * step_s, end_s=len(uplink) * step_s, values=values, source="by hand")


def wandering(seed: int, seconds: int = 300) -> Trace:
    steps = np.random.default_rng(seed).normal(0, 0.35, seconds)
    logs = np.empty(seconds)
    level = 0.0
    for second, step in enumerate(steps):
        level = 0.93 * level + step
        logs[second] = level
    uplink = 3e6 * np.exp(logs)
    uplink[seconds // 2 : seconds // 2 + 4] = 0.0
    return trace_of(uplink, edge_load=np.clip(0.3 + 0.2 * np.sin(np.arange(seconds) / 30), 0, 1))


ALL_POLICIES = (
    "all-edge",
    "all-cloud",
    "fixed:003-abcdef",
    "static",
    "always-best",
    "threshold-table",
    "hysteresis",
    "predictive",
    "learned",
)
SETTING = Setting(fallback_after_s=1.0, rate_hz=1.0)
TRAINING = Training(traces=(wandering(1), wandering(2)), setting=SETTING)


@pytest.mark.parametrize("cut", [0, 1, 2])
def test_without_queues_and_changes_a_request_takes_what_the_cost_model_says(cut):
    table, trace = three_cuts(), trace_of(np.full(50, 4e6), edge_load=0.0)
    arrivals = periodic(0.5, 50.0)
    ticks = tick_times(50.0, 1.0)
    served = simulate_decisions("x", table, trace, arrivals, ticks, np.full(50, cut), World())
    said = cost(table, {name: values[:1] for name, values in trace.values.items()}).total_s[0, cut]
    np.testing.assert_allclose(served.latency_s, said, rtol=1e-9)


def test_an_idle_system_gives_what_realised_says_also_while_rates_change():
    table, trace = three_cuts(), wandering(3)
    arrivals = periodic(0.2, 300.0)
    ticks = tick_times(300.0, 1.0)
    setting = Setting(fallback_after_s=1.0)
    said = realised_s(table, trace, arrivals, setting)
    for cut in range(3):
        served = simulate_decisions("x", table, trace, arrivals, ticks, np.full(300, cut), World(setting=setting))
        assert (served.how == FELL_BACK).any() == (cut < 2)
        np.testing.assert_allclose(served.latency_s, said[:, cut], rtol=1e-6)


def test_the_mean_wait_is_that_of_an_m_d_1_queue():
    """Pollaczek and Khinchine: rho * s / (2 (1 - rho)); 40 blocks of the simulation give its interval."""
    table, trace = three_cuts(), trace_of([1e6])
    rate, service = 3.5, 0.2
    arrivals = poisson(rate, 60_000.0, seed=5)
    ticks = tick_times(60_000.0, 1.0)
    served = simulate_decisions("x", table, trace, arrivals, ticks, np.full(len(ticks), 2), World())
    waits = served.parts_s[PARTS.index("edge_wait")]
    blocks = np.array([block.mean() for block in np.array_split(waits[1000:], 40)])
    expected = rate * service * service / (2 * (1 - rate * service))
    assert abs(blocks.mean() - expected) < 3 * blocks.std(ddof=1) / math.sqrt(40)
    assert queueing_s(np.array([service]), rate)[0] == pytest.approx(expected)


def test_poisson_gaps_are_exponential():
    gaps = np.diff(poisson(20.0, 5_000.0, seed=1))
    assert gaps.mean() == pytest.approx(0.05, rel=0.02)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.02)
    for share in (0.1, 0.5, 0.9):
        assert np.quantile(gaps, share) == pytest.approx(-0.05 * math.log(1 - share), rel=0.03)


@pytest.mark.parametrize("spec", ALL_POLICIES)
def test_a_policy_decides_the_same_tick_by_tick_as_in_one_go(spec):
    policy = train(spec, three_cuts(), TRAINING)
    ticks = tick_times(300.0, 1.0)
    told = measured(wandering(4), ticks, 1.0)
    _, at_once = run(policy, ticks, told)
    state, one_by_one = policy.start(), []
    for tick, now_s in enumerate(ticks):
        state = decide(policy, state, float(now_s), {name: values[tick : tick + 1] for name, values in told.items()})
        one_by_one.append(state.cut)
    assert one_by_one == at_once.tolist()


@pytest.mark.skipif(not can_compile(), reason="numba is not installed (extra simulate)")
@pytest.mark.parametrize("batch_limit", [1, 4])
@pytest.mark.parametrize("spec", ["hysteresis", "learned"])
def test_numba_and_python_give_the_same_bits(spec, batch_limit):
    policy = train(spec, three_cuts(exit_share=np.array([0.0, 0.3, 0.3])), TRAINING)
    world = World(setting=SETTING, batch_limit=batch_limit, batch_wait_s=0.05, cloud_fails=((50.0, 58.0),), workers=2)
    arrivals = poisson(4.0, 300.0, seed=3)
    compiled, plain = (
        simulate(policy, wandering(4), arrivals, world, seed=7, compiled=which) for which in (True, False)
    )
    assert np.array_equal(compiled.done_s, plain.done_s)
    assert np.array_equal(compiled.parts_s, plain.parts_s)
    assert np.array_equal(compiled.how, plain.how)
    assert {ON_EDGE, BY_CLOUD, FELL_BACK} == set(compiled.how.tolist())


def test_the_seed_decides_everything():
    policy = train("learned", three_cuts(exit_share=np.array([0.0, 0.3, 0.3])), TRAINING)

    def once(seed):
        return simulate(policy, wandering(4), poisson(2.0, 300.0, seed), World(setting=SETTING), seed=seed).done_s

    assert np.array_equal(once(1), once(1))
    assert not np.array_equal(once(1)[:50], once(2)[:50])


def test_the_edge_finishes_what_a_failed_cloud_does_not_answer():
    table, trace = three_cuts(), trace_of(np.full(60, 8e6))
    world = World(setting=Setting(fallback_after_s=0.5), cloud_fails=((20.0, 30.0),))
    arrivals = periodic(1.0, 60.0)
    served = simulate_decisions("x", table, trace, arrivals, tick_times(60.0, 1.0), np.zeros(60, dtype=int), world)
    fell = arrivals[served.how == FELL_BACK]
    assert fell.min() > 19.5 and fell.max() < 30.0 and len(fell) == 10
    np.testing.assert_allclose(served.latency_s[served.how == FELL_BACK], 0.5 + 0.2, rtol=1e-9)
    no_fallback = World(setting=Setting(), cloud_fails=((20.0, 30.0),))
    served = simulate_decisions(
        "x", table, trace, arrivals, tick_times(60.0, 1.0), np.zeros(60, dtype=int), no_fallback
    )
    assert served.lost == 10 and np.isinf(served.latency_s).sum() == 10


def test_a_cold_switch_keeps_the_edge_busy_and_a_warm_one_does_not():
    table, trace = three_cuts(), trace_of(np.full(20, 8e6))
    decided = np.where(np.arange(20) < 10, 2, 1)
    arrivals = np.array([1.0, 10.0, 15.0])
    by_kind = {}
    for warm in (None, ("all-edge",)):
        world = World(setting=Setting(cold_s=0.7, warm_s=0.001, warm=warm))
        served = simulate_decisions("x", table, trace, arrivals, tick_times(20.0, 1.0)[:16], decided[:16], world)
        by_kind[warm] = served.parts_s[PARTS.index("edge_wait")]
    np.testing.assert_allclose(by_kind[None], [0, 0.001, 0])
    np.testing.assert_allclose(by_kind[("all-edge",)], [0, 0.7, 0])


def test_early_exits_never_cross():
    table = three_cuts(exit_share=np.array([0.0, 0.4, 0.4]))
    arrivals = periodic(1.0, 4000.0)
    ticks = tick_times(4000.0, 1.0)
    served = simulate_decisions("x", table, trace_of([8e6]), arrivals, ticks, np.full(4000, 1), World(), seed=2)
    assert np.mean(served.how == ON_EDGE) == pytest.approx(0.4, abs=0.03)
    said = cost(table, {"uplink_bps": 8e6, "downlink_bps": 10e6, "rtt_s": 0.03}).total_s[0, 1]
    assert served.latency_s.mean() == pytest.approx(said, rel=0.02)


def test_full_batches_share_their_time():
    table, trace = three_cuts(), trace_of([1e9])
    world = World(batch_limit=4, batch_wait_s=1.0, batch_share=0.25, workers=1)
    arrivals = np.array([1.0, 1.001, 1.002, 1.003, 5.0])
    served = simulate_decisions("x", table, trace, arrivals, tick_times(6.0, 1.0), np.zeros(6, dtype=int), world)
    cloud = served.parts_s[PARTS.index("cloud")]
    np.testing.assert_allclose(cloud, [0.02 * 1.75] * 4 + [0.02])
    assert served.parts_s[PARTS.index("cloud_wait")][4] == pytest.approx(1.0)


def test_probes_are_late_and_noisy_and_never_tell_the_present():
    trace = trace_of([1e6, 2e6, 4e6, 8e6])
    ticks = tick_times(4.0, 1.0)
    assert measured(trace, ticks, 1.0)["uplink_bps"].tolist() == [1e6, 1e6, 2e6, 4e6]
    from partitioner.measured import Probes

    assert measured(trace, ticks, 1.0, Probes(delay_s=1.0))["uplink_bps"].tolist() == [1e6, 1e6, 1e6, 2e6]
    long = trace_of(np.full(4000, 1e6))
    noisy = measured(long, tick_times(4000.0, 1.0), 1.0, Probes(noise=0.2))["uplink_bps"]
    assert np.log(noisy / 1e6).std() == pytest.approx(0.2, rel=0.05)


def test_the_learner_finds_out_that_the_edge_is_slower_than_its_profile():
    """The estimated profile says a quarter of what the edge needs: the cost model stays there, wrongly."""
    believed = three_cuts()
    truth = dataclasses.replace(believed, edge_s=believed.edge_s * 4)
    trace = trace_of(np.full(200, 3e6))
    training = Training(traces=(trace,), setting=SETTING)
    world = World(setting=SETTING, truth=truth)
    arrivals = periodic(1.0, 200.0)
    naive = simulate(train("always-best", believed, training), trace, arrivals, world)
    learner = simulate(train("learned", believed, training), trace, arrivals, world)
    assert learner.latency_s[100:].mean() < 0.8 * naive.latency_s[100:].mean()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1\n2\nx\n", "line 3: 'x'"),
        ("2\n1\n", "line 2: 1 comes before 2"),
        ("# none\n\n", "holds no arrivals"),
        ("nan\n", "line 1"),
        ("-1\n", "line 1"),
    ],
)
def test_bad_arrival_files_are_refused_with_the_line(tmp_path, text, said):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(BadInput, match=said):
        read_arrivals(tmp_path / "a.txt")


@pytest.mark.parametrize(
    "make",
    [
        lambda: World(workers=0),
        lambda: World(cloud_fails=((3.0, 2.0),)),
        lambda: Setting(tick_s=0.0),
        lambda: Setting(warm_s=-1.0),
        lambda: poisson(0.0, 10.0, 0),
        lambda: train("fixed:nothing", three_cuts(), TRAINING),
        lambda: train("no-such-policy", three_cuts(), TRAINING),
        lambda: train("static:x", three_cuts(), TRAINING),
    ],
)
def test_settings_out_of_range_are_refused(make):
    with pytest.raises(BadInput):
        make()


def test_observing_nothing_changes_nothing():
    policy = train("learned", three_cuts(), TRAINING)
    state = policy.start()
    assert observe(policy, state, []) is state
