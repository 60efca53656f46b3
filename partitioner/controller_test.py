from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from edge_deploy.core import registry
from edge_deploy.core.conditions import CONDITION_FIELDS, Conditions
from edge_deploy.core.errors import BadInput
from edge_deploy.core.serde import write_json
from partitioner.controller import POLICIES, decide, observe, run, step, train
from partitioner.link_memory import dead_ticks, empty, recall, remember
from partitioner.plan_table import PlanTable, TableCut, look_up
from partitioner.policies.predictive import forecast
from partitioner.policy import Observation, Training
from partitioner.setting import Setting, expected_s
from partitioner.simulator.simulate_test import SETTING, TRAINING, three_cuts, trace_of


@pytest.mark.parametrize("name", registry.names(POLICIES))
def test_every_policy_of_the_folder_decides_without_training_traces(name):
    spec = "fixed:all-edge" if name == "fixed" else name
    policy = train(spec, three_cuts(), Training(traces=(), setting=SETTING))
    state = policy.start()
    for second, rate in enumerate([5e6, 0.0, 1e9, 2e5]):
        now = Conditions(uplink_bps=rate, downlink_bps=1e7, rtt_s=0.02)
        state, plan = step(policy, state, float(second), now)
        assert plan.cuts == (policy.table.cuts[state.cut],)
        assert plan.conditions == now and plan.cost.edge_s == policy.table.edge_s[state.cut]
        seen = Observation(cut=state.cut, edge_s=0.1, send_s=None, cloud_s=None, latency_s=0.1)
        state = observe(policy, state, [seen])


def test_a_step_changes_nothing_but_the_state_it_returns():
    policy = train("learned", three_cuts(), TRAINING)
    state = policy.start()
    before = state.memory.link.took_s.copy()
    now = Conditions(uplink_bps=3e6, downlink_bps=1e7, rtt_s=0.02)
    first = [step(policy, state, 0.0, now)[1] for _ in range(3)]
    later = state
    for second in range(20):
        later, _ = step(policy, later, float(second), now)
    assert first[0] == first[1] == first[2]
    assert np.array_equal(state.memory.link.took_s, before)
    assert not np.array_equal(later.memory.link.took_s, before)


def test_hysteresis_ignores_small_gains_and_cools_down():
    policy = train("hysteresis", three_cuts(), Training(traces=(), setting=SETTING))

    def decisions(rates, **changes):
        chosen, state = [], policy.start()
        for second, rate in enumerate(rates):
            now = {"uplink_bps": np.array([rate]), "downlink_bps": np.array([1e7]), "rtt_s": np.array([0.03])}
            state = decide(dataclasses.replace(policy, **changes), state, float(second), now)
            chosen.append(policy.table.cuts[state.cut])
        return chosen

    assert decisions([50e6])[0] == "all-cloud"
    assert decisions([50e6], margin=0.9) == ["all-edge"]
    flapping = [50e6, 1e5, 50e6, 1e5, 50e6, 1e5]
    often, seldom = (decisions(flapping, cool_down_s=seconds) for seconds in (0.0, 4.0))
    changes = [sum(a != b for a, b in itertools.pairwise(run)) for run in (often, seldom)]
    assert changes == [5, 1]


@pytest.mark.parametrize("name", [name for name in registry.names(POLICIES) if name not in ("fixed", "static")])
def test_a_policy_that_moves_leaves_a_cut_that_is_expected_over_the_limit(name):
    limit_s = 0.35
    free = train(name, three_cuts(), TRAINING)
    policy = dataclasses.replace(free, setting=dataclasses.replace(free.setting, max_latency_s=limit_s))
    # Margins and cool-downs that would keep it where it is.
    stubborn = {"margin": 0.99, "cool_down_s": 1e6} if name == "hysteresis" else {}
    policy, free = dataclasses.replace(policy, **stubborn), dataclasses.replace(free, **stubborn)
    state = policy.start()
    rates = 10 ** np.random.default_rng(0).uniform(4.5, 8, 200)
    told = {name: np.zeros(200) for name in CONDITION_FIELDS}
    told |= {"uplink_bps": rates, "downlink_bps": np.full(200, 1e7), "rtt_s": np.full(200, 0.03)}
    ticks, over = np.arange(200.0), 0
    for tick, now_s in enumerate(ticks.tolist()):
        one = {field: values[tick : tick + 1] for field, values in told.items()}
        _, row = policy.foresee(state, policy.look(one))
        seconds = row[0] if policy.foresees_seconds else expected_s(policy.table, one, policy.setting)[0]
        state = decide(policy, state, now_s, one)
        assert seconds[state.cut] <= limit_s or seconds.min() > limit_s
        over += seconds.max() > limit_s >= seconds.min()
    assert over > 20
    _, decided = run(policy, ticks, told)
    assert decided[-1] == state.cut
    assert name != "hysteresis" or not np.array_equal(decided, run(free, ticks, told)[1])


def test_the_forecast_follows_a_ramp_further_than_the_last_value():
    ramp = 1e6 * 1.2 ** np.arange(12)
    ahead, _ = forecast(ramp, level=0.7, trend=0.3)
    assert ahead[-1] > ramp[-1]
    level_only, _ = forecast(ramp, level=0.7, trend=0.0)
    assert level_only[-1] < ramp[-1]
    with_outage, _ = forecast(np.array([2e6, 2e6, 0.0, 2e6]), level=0.5, trend=0.1)
    assert with_outage[2] == 0.0 and with_outage[3] == pytest.approx(2e6)
    one, state = forecast(ramp[:5], 0.7, 0.3)
    two, _ = forecast(ramp[5:], 0.7, 0.3, state)
    assert np.array_equal(np.concatenate((one, two)), ahead)


def test_the_link_memory_starts_as_the_cost_model_and_learns_what_transfers_took():
    memory = empty(np.array([1000.0, 50_000.0]), most_s=10.0)
    rates = np.array([1e5, 1e6, 3.3e7])
    mean, _, late = recall(memory, rates, np.zeros(3, int))
    np.testing.assert_allclose(mean, np.minimum(np.array([8000.0, 400_000.0]) / rates[:, None], 10.0))
    assert (late == 0).all()
    # After 1 Mbit/s was measured, transfers really took twice as long.
    for _ in range(200):
        memory = remember(memory, np.array([1e6]), np.zeros(1, int), np.array([[0.016, 0.8]]))
    mean, error, _ = recall(memory, np.array([1e6, 3.3e7]), np.zeros(2, int))
    np.testing.assert_allclose(mean[0], [0.016, 0.8], rtol=0.05)
    np.testing.assert_allclose(mean[1], np.array([8000.0, 400_000.0]) / 3.3e7)
    assert (error[0] < 0.05 * mean[0]).all() and (error[1] > 0.3 * mean[1]).all()


def test_a_link_that_just_died_is_expected_back_and_one_that_has_been_dead_for_long_is_not():
    memory = empty(np.array([50_000.0]), most_s=10.0, usual_bps=2e7)
    assert dead_ticks(memory, np.array([0.0, 1e6, 0.0, 0.0, 1.9e5, 1e6]), before=3).tolist() == [4, 0, 1, 2, 3, 0]
    # Nine outages of one tick, and one of thirty.
    for _ in range(9):
        memory = remember(memory, np.zeros(1), np.ones(1, int), np.array([[0.9]]))
    long = np.arange(1, 31)
    memory = remember(memory, np.zeros(30), long, np.maximum(31.0 - long, 0.9)[:, None])
    mean, _, late = recall(memory, np.zeros(2), np.array([1, 12]))
    assert mean[0, 0] < 3.0 < 7.0 < mean[1, 0]
    assert late[0, 0] < 0.2 < 0.5 < late[1, 0]


def plan_table_file(path, cuts=("all-cloud", "003-abcdef", "all-edge"), choice=(2, 2, 1, 2, 0, 1)):
    table = PlanTable(
        artifact="net",
        sha256="",
        edge="e",
        cloud="c",
        provenance="measured",
        codec="raw",
        objective="latency",
        rule="",
        uplink_bps=(1e5, 1e6, 1e7),
        edge_load=(0.0, 1.0),
        rtt_s=(0.1,),
        fixed={},
        cuts=tuple(TableCut(id=cut, edge_layers=(), up=(), up_bytes=0, down_bytes=0) for cut in cuts),
        choice=choice,
        latency_s=(0.0,) * 6,
        without_link=2,
    )
    write_json(table, path)
    return table


def test_the_threshold_policy_reads_tables_as_apps_do(tmp_path):
    table = plan_table_file(tmp_path / "t.json")
    policy = train(f"threshold-table:{tmp_path / 't.json'}", three_cuts(), Training(traces=(), setting=Setting()))
    random = np.random.default_rng(0)
    for _ in range(200):
        rate, load, rtt = 10 ** random.uniform(4, 8.5), random.random(), random.uniform(0, 0.3)
        now = Conditions(uplink_bps=rate, downlink_bps=1e7, rtt_s=rtt, edge_load=load)
        _, plan = step(policy, policy.start(), 0.0, now)
        assert plan.cuts[0] == look_up(table, uplink_bps=rate, edge_load=load, rtt_s=rtt)


def test_tables_of_other_models_and_tables_with_holes_are_refused(tmp_path):
    training = Training(traces=(), setting=Setting())
    plan_table_file(tmp_path / "other.json", cuts=("all-cloud", "007-123456", "all-edge"))
    with pytest.raises(BadInput, match="no legal cut 007-123456"):
        train(f"threshold-table:{tmp_path / 'other.json'}", three_cuts(), training)
    plan_table_file(tmp_path / "holes.json", choice=(2, -1, 1, 2, 0, 1))
    with pytest.raises(BadInput, match="a policy needs a cut everywhere"):
        train(f"threshold-table:{tmp_path / 'holes.json'}", three_cuts(), training)


def test_a_threshold_table_learns_what_was_best_after_each_measurement():
    """The measured rate is always the opposite of the next one: the cost model is wrong every time, the table never."""
    flip = trace_of(np.tile([5e5, 5e7], 200))
    training = Training(traces=(flip,), setting=SETTING)
    policy = train("threshold-table", three_cuts(), training)
    state = policy.start()
    for rate, expected in ((5e7, "all-edge"), (5e5, "all-cloud")):
        now = {"uplink_bps": np.array([rate]), "edge_load": np.zeros(1), "rtt_s": np.array([0.03])}
        state = decide(policy, state, 0.0, now)
        assert policy.table.cuts[state.cut] == expected
