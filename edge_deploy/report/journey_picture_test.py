"""The README's picture is one well-formed SVG that needs nothing from outside."""

from xml.etree import ElementTree

import numpy as np

from edge_deploy.report.journey_picture import WIDTH, journey_picture
from edge_deploy.report.plan_layers import AlongLayers
from edge_deploy.report.plan_map import CutMap
from edge_deploy.report.simulation_drawings import AlongTrace

SVG = "{http://www.w3.org/2000/svg}"


def picture():
    layers = AlongLayers(
        names=("(input)", "conv", "dense"),
        up_bytes=(3000, 800, 0),
        legal=(True, False, True),
        edge_s=(0.0, 0.02, 0.001),
        cloud_s=(0.0, 0.002, 0.0001),
        chosen=1,
    )
    where = CutMap(
        uplink_bps=(1e6, 1e7, 1e8),
        edge_load=(0.0, 1.0),
        cuts=(("all-edge", "001-abcdef", "all-cloud"), ("001-abcdef", "all-cloud", "all-cloud")),
        here=(1e7, 0.5),
    )
    times = np.arange(10.0)
    decided = {"static": (times, np.zeros(10, dtype=int)), "learned": (times, np.arange(10) % 2)}
    along = AlongTrace(
        source="trace <1>",
        end_s=10.0,
        time_s=times,
        uplink_bps=np.linspace(1e6, 2e7, 10),
        edge_load=np.zeros(10),
        cuts=("all-cloud", "all-edge"),
        decided=decided,
        latency={name: (times, np.linspace(0.1, 0.2, 10)) for name in decided},
    )
    return journey_picture("Journey", layers, "two <layers>", where, "map", along, ("static", "learned"), "pays")


def test_the_picture_is_one_svg_with_every_panel_inside_it():
    root = ElementTree.fromstring(picture())
    assert root.tag == f"{SVG}svg"
    _, _, width, tall = (float(part) for part in root.attrib["viewBox"].split())
    panels = root.findall(f"{SVG}svg")
    assert len(panels) == 4 and width == WIDTH
    ends = [float(panel.attrib["y"]) + float(panel.attrib["height"]) for panel in panels]
    assert ends == sorted(ends) and ends[-1] < tall
    said = "".join(root.itertext())
    for text in ("two <layers>", "001-abcdef (33%)", "learned", "bytes that cross", "trace <1>"):
        assert text in said, text
    assert "http" not in picture().replace("http://www.w3.org/2000/svg", "")
