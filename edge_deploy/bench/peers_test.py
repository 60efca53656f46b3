import pytest

pytest.importorskip("runtimes.serving.nets_test")

from edge_deploy.bench.peers import ask_mlserver, ask_with_tritonclient, environment
from runtimes.serving import nets_test as nets


def python_of(name):
    found = environment(name)
    if found is None:
        pytest.skip(f"{name} needs an environment of its own; `make bench-peers` makes it under build/bench-peers")
    return found


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    folder = tmp_path_factory.mktemp("halves")
    nets.write_halves(folder)
    return folder


def test_tritonclient_gets_right_answers_from_our_server(halves):
    said = ask_with_tritonclient(python_of("tritonclient"), halves, nets.CUT)
    assert (said["differing"], said["right_version"]) == ([], True)
    assert said["live"] and said["ready"] and said["model_ready"]
    assert said["models"] == ["net", f"net@{nets.CUT}"]
    assert said["unknown_model"] == "StatusCode.NOT_FOUND"


def test_our_client_gets_right_answers_from_mlserver(halves):
    said = ask_mlserver(python_of("mlserver"), halves, nets.CUT)
    assert (said["differing"], said["cuts"]) == ([], [nets.CUT, "all-cloud"])
    assert said["answers"] == 6 and said["wrong_digest"] == "refused"
