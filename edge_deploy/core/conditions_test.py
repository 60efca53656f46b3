import numpy as np
import pytest

from edge_deploy.core.conditions import CONDITION_FIELDS, Conditions, Trace
from edge_deploy.core.errors import BadInput


def trace(**changes) -> Trace:
    values = {name: np.zeros(3) for name in CONDITION_FIELDS} | {"uplink_bps": np.array([1e6, 2e6, 3e6])}
    return Trace(
        **{"time_s": np.array([0.0, 1.0, 4.0]), "end_s": 5.0, "values": values, "source": "made here"} | changes
    )


def test_an_entry_holds_until_the_next_one():
    assert [trace().at(now).uplink_bps for now in (-1, 0, 0.99, 1, 3.9, 4, 99)] == [1e6, 1e6, 1e6, 2e6, 2e6, 3e6, 3e6]


@pytest.mark.parametrize("times", [[0.0, 1.0, 1.0], [0.5, 1.0, 2.0], [0.0, 1.0, 5.0], []])
def test_times_that_do_not_run_forward_are_refused(times):
    with pytest.raises(BadInput, match="times must start at 0"):
        trace(time_s=np.array(times))


def test_values_out_of_range_are_refused_by_name():
    with pytest.raises(BadInput, match=r"edge_load = 1\.5"):
        Conditions(uplink_bps=1, downlink_bps=1, rtt_s=0, edge_load=1.5)
    values = trace().values | {"rtt_s": np.array([0, -1, 0.0])}
    with pytest.raises(BadInput, match="rtt_s has values out of range"):
        trace(values=values)
