import numpy as np
import pytest

from edge_deploy.core.conditions import Conditions
from edge_deploy.core.cut import make_cut
from edge_deploy.core.errors import BadInput, NoFeasiblePlan
from edge_deploy.core.layer_graph import Layer, LayerGraph
from edge_deploy.core.profile import ModelProfile
from edge_deploy.core.tensor import TensorInfo
from partitioner.problem import Problem
from partitioner.study.scission import INPUT_BYTES, answers, read_blocks, read_links
from partitioner.three_tiers import Links, pair_costs, three_tiers

BLOCKS = """system,dnn,input_layer,output_layer,seconds,output_bytes
device-pi,net,0,1,1.0,1000
device-pi,net,2,2,1.0,10
edge-box,net,0,1,0.5,1000
edge-box,net,2,2,0.5,10
cloud-big,net,0,1,0.1,1000
cloud-big,net,2,2,0.1,10
"""
LINKS = """source,destination,ping(ms),bandwidth(mbps)
pi,box,   100, 0.008
pi,big,   200, 0.008
box,big,  10,  8
"""


@pytest.fixture
def small(tmp_path):
    (tmp_path / "layers.csv").write_text(BLOCKS)
    (tmp_path / "links.csv").write_text(LINKS)
    return read_blocks(tmp_path / "layers.csv")["net"], read_links(tmp_path / "links.csv")


def test_the_five_published_layouts_of_vgg19_come_out_under_their_constraints(data):
    folder = data / "tables/scission_qub"
    table, links = read_blocks(folder / "layers.csv")["vgg19"], read_links(folder / "network_stats.csv")
    found = answers(table, links, must={"device": [6], "edge": [7], "cloud": [13]})
    assert [round(each.total_s, 4) for each in found] == [9.0106, 9.0594, 9.0721, 9.1209, 9.1511]
    assert [each.ends["device"] for each in found] == [6] * 5
    assert [each.ends["edge"] for each in found] == [11, 11, 11, 11, 12]
    assert len({(each.machines["edge"], each.machines["cloud"]) for each in found[:4]}) == 4
    best = answers(table, links, top=1)[0]
    assert round(best.total_s, 2) == 0.86
    assert best.machines == {"cloud": "6700k(GPU)"}


def test_all_layouts_are_weighed_by_hand(small):
    table, links = small
    found = answers(table, links, input_bytes=500, top=100)
    times = {tuple(each.machines.items()) + tuple(each.ends.values()): each.total_s for each in found}
    assert times == {
        (("device", "pi"), 2): pytest.approx(2.0),
        (("edge", "box"), 2): pytest.approx(0.1 + 0.5 + 1.0),
        (("cloud", "big"), 2): pytest.approx(0.2 + 0.5 + 0.2),
        (("device", "pi"), ("edge", "box"), 1, 2): pytest.approx(1 + 0.1 + 1 + 0.5),
        (("device", "pi"), ("cloud", "big"), 1, 2): pytest.approx(1 + 0.2 + 1 + 0.1),
        (("edge", "box"), ("cloud", "big"), 1, 2): pytest.approx(0.1 + 0.5 + 0.5 + 0.01 + 0.001 + 0.1),
    }
    assert [each.total_s for each in found] == sorted(each.total_s for each in found)


def test_constraints_are_kept_and_impossible_ones_refused(small):
    table, links = small
    assert all("edge" in each.machines for each in answers(table, links, must={"edge": [0]}, top=99))
    with pytest.raises(NoFeasiblePlan):
        answers(table, links, must={"edge": [0], "device": [2]})
    with pytest.raises(BadInput, match="unknown tier"):
        answers(table, links, must={"fog": [0]})
    with pytest.raises(BadInput, match="has layers 0 to 2"):
        answers(table, links, must={"edge": [9]})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("output_bytes", "size", "no column output_bytes"),
        ("edge-box,net,2,2,0.5,10", "edge-box,net,2,2,fast,10", "line 5: layers, seconds and bytes"),
        ("edge-box,net,2,2,0.5,10", "edge-box,net,2,2,-1,10", "line 5: a value is negative"),
        ("edge-box,net,2,2,0.5,10", "box,net,2,2,0.5,10", "must begin with device-"),
        ("edge-box,net,2,2,0.5,10", "edge-box,net,2,3,0.5,10", "the blocks of edge-box differ"),
        ("edge-box,net,2,2,0.5,10", "edge-box,net", "fewer cells"),
    ],
)
def test_bad_tables_are_refused(tmp_path, old, new, message):
    (tmp_path / "layers.csv").write_text(BLOCKS.replace(old, new))
    with pytest.raises(BadInput, match=message):
        read_blocks(tmp_path / "layers.csv")


@pytest.mark.parametrize(("old", "new"), [("0.008", "fast"), ("100", "-1"), ("10,  8", "10,  0")])
def test_bad_links_are_refused(tmp_path, old, new):
    (tmp_path / "links.csv").write_text(LINKS.replace(old, new, 1))
    with pytest.raises(BadInput, match="ping"):
        read_links(tmp_path / "links.csv")


def test_the_planner_s_three_tiers_give_the_same_times(data):
    folder = data / "tables/scission_qub"
    table, links = read_blocks(folder / "layers.csv")["vgg19"], read_links(folder / "network_stats.csv")
    names = [f"block {last:02d}" for last in table.last]
    graph = LayerGraph(
        inputs=(TensorInfo(name="image", shape=(INPUT_BYTES,), dtype="int8"),),
        outputs=(names[-1],),
        layers=tuple(
            Layer(
                name=name, op="BLOCK", inputs=(before,), outputs=(TensorInfo(name=name, shape=(size,), dtype="int8"),)
            )
            for name, before, size in zip(names, ["image", *names], table.bytes, strict=False)
        ),
    )

    def profile(machine):
        seconds = dict(zip(names, table.seconds[machine], strict=True))
        return ModelProfile(
            artifact="vgg19", sha256="", device=machine, kernels="", provenance="measured", source="published table",
            layer_s=seconds, overhead_s=0.0, whole_s=sum(seconds.values()),
        )  # fmt: skip

    def conditions(one, other):
        link = links[one, other]
        return Conditions(uplink_bps=link.bits_per_s, downlink_bps=1e18, rtt_s=link.ping_s)

    trio = ("raspi4", "vm2Core", "6700k(GPU)")
    device, edge, cloud = trio
    cuts = [make_cut(graph, names[:count]) for count in range(len(names) + 1)]
    tiers = three_tiers(Problem(graph=graph, edge=profile(device), cloud=profile(cloud)), cuts, profile(edge))
    near, far, direct = conditions(device, edge), conditions(edge, cloud), conditions(device, cloud)
    theirs = pair_costs(tiers, Links(near=near, far=far, direct=direct)).total_s
    ours = [each.total_s for each in answers(table, links, top=10**6) if set(each.machines.values()) <= set(trio)]
    np.testing.assert_allclose(sorted(ours), np.sort(theirs[np.isfinite(theirs)]), rtol=1e-9)
    published = next(place for place, last in enumerate(table.last) if last == 6) + 1
    assert theirs[published, published + 5] == pytest.approx(9.0106, abs=5e-5)
