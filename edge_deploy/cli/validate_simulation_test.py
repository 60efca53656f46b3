"""Two processes, a link between them, and the simulator beside: everything is counted; how near they are is a bench."""

import json

import pytest

from edge_deploy.cli.main import main


@pytest.fixture(scope="module")
def validated(data, tmp_path_factory):
    pytest.importorskip("grpc")
    out = tmp_path_factory.mktemp("validation")
    model = data / "models" / "mlperf_tiny_ic_resnet8" / "pretrainedResnet_quant.tflite"
    options = ["--link", "50Mbit/50Mbit/5ms", "--cut", "all-cloud", "--policy", "hysteresis"]
    options += ["--seconds", "2s", "--rate", "10", "--codec", "zstd", "--link-by", "proxy"]
    with pytest.raises(SystemExit) as ended:
        main(["validate-simulation", str(model), *options, "--edge-cores", "1.5", "--out", str(out)])
    assert ended.value.code == 0
    return out


def test_every_request_is_answered_on_both_sides_and_what_was_done_is_written_down(validated):
    found = json.loads((validated / "validation.json").read_text())
    assert [one["name"].rpartition(", ")[2] for one in found["conditions"]] == ["all-cloud", "hysteresis"]
    for one in found["conditions"]:
        live, simulated = (sum(counts[side] for counts in one["answered"].values()) for side in (0, 1))
        assert live == simulated == one["requests"] > 0
        assert 0 < one["live_median_s"] <= one["live_p95_s"]
        assert 0 < one["simulated_median_s"] <= one["simulated_p95_s"]
    assert found["table"]["all-cloud"][2] > 0 and found["table"]["all-edge"][2] == 0
    assert found["links"][0]["asked_bps"] > 0 and "achieved_bps" in found["links"][0]
    assert "proxy" in found["shaped_by"] and found["edge_quota"] and found["cloud_quota"] == "no quota asked for"
    assert "Simulation against reality" in (validated / "index.html").read_text()


def test_a_link_that_nobody_can_read_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["validate-simulation", "net.tflite", "--link", "5Mbit/40ms", "--out", str(tmp_path / "out")])
    assert ended.value.code == 3
    assert "must be UP/DOWN/RTT" in capsys.readouterr().err
