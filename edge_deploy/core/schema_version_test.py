import json

import pytest

from edge_deploy.core.errors import BadInput
from edge_deploy.core.schema_version import CURRENT, check_schema_version, version_text
from edge_deploy.core.serde import dumps, loads
from edge_deploy.core.tensor import TensorInfo

IMAGE = TensorInfo(name="image", shape=(1, 8, 8, 1), dtype="float32", layout="NHWC")


def of_version(version, **more):
    return json.dumps({**json.loads(dumps(IMAGE)), "schema_version": version, **more})


def test_what_is_written_says_the_current_version():
    assert json.loads(dumps(IMAGE))["schema_version"] == version_text() == f"{CURRENT[0]}.{CURRENT[1]}"


@pytest.mark.parametrize("version", [1, "1", "1.0", "1.1"])
def test_files_of_older_minors_are_read_and_fields_that_came_later_take_their_defaults(version):
    old = json.dumps({"schema_version": version, "name": "x", "shape": [1, 2], "dtype": "int8"})
    assert loads(TensorInfo, old, where="old.json") == TensorInfo(name="x", shape=(1, 2), dtype="int8")


def test_files_of_a_newer_minor_are_read_without_what_this_version_does_not_know():
    newer = of_version(f"{CURRENT[0]}.{CURRENT[1] + 1}", colour_space="RGB")
    assert loads(TensorInfo, newer, where="newer.json") == IMAGE
    with pytest.raises(BadInput, match=r"colour_space: unknown key"):
        loads(TensorInfo, of_version(version_text(), colour_space="RGB"), where="same.json")


def test_a_newer_file_is_still_checked():
    newer = of_version(f"{CURRENT[0]}.99", dtype="float33")
    with pytest.raises(BadInput, match="float33"):
        loads(TensorInfo, newer, where="newer.json")


def test_a_newer_major_is_refused_with_what_to_do():
    with pytest.raises(BadInput, match=r"newer edge-deploy.*Upgrade.*convert again"):
        loads(TensorInfo, of_version(f"{CURRENT[0] + 1}.0"), where="manifest.json")


def test_an_older_major_is_refused_while_there_is_no_reader_for_it():
    assert not check_schema_version("2.0", where="x", current=(2, 3))
    with pytest.raises(BadInput, match=r"too old"):
        check_schema_version("1.7", where="x", current=(2, 3))


@pytest.mark.parametrize("version", [None, True, "new", "1.", "-1", [1], 1.5])
def test_a_file_without_a_sound_version_is_none_of_ours(version):
    with pytest.raises(BadInput, match="schema_version"):
        check_schema_version(version, where="x")
