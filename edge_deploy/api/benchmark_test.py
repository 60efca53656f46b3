import pytest

from device_tests.compare_test import STEADY, report
from edge_deploy.api.benchmark import read_report
from edge_deploy.core.artifact import MANIFEST
from edge_deploy.core.errors import BadInput
from edge_deploy.core.serde import write_json


def test_a_report_is_found_by_its_file_its_artifact_or_the_folder_that_holds_it_alone(tmp_path):
    made = report(STEADY)
    artifact, out = tmp_path / "artifact", tmp_path / "out"
    for folder, name in ((artifact, MANIFEST), (artifact, "benchmark.json"), (out, "0-net-int8.json")):
        folder.mkdir(exist_ok=True)
        write_json(made, folder / name)
    for path in (out / "0-net-int8.json", artifact, out):
        assert read_report(path) == made
    write_json(made, out / "1-net-int8.json")
    with pytest.raises(BadInput, match=r"holds 2 reports; name one: 0-net-int8\.json, 1-net-int8\.json"):
        read_report(out)
    (artifact / "benchmark.json").unlink()
    with pytest.raises(BadInput, match=r"artifact: holds no benchmark\.json; run edge-deploy benchmark"):
        read_report(artifact)
