"""A server of small artifacts, and where it is."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def halves(tmp_path_factory) -> tuple[Path, str]:
    """Folder of halves of the model `net`, and its digest."""
    nets = pytest.importorskip("runtimes.serving.nets_test")
    folder = tmp_path_factory.mktemp("halves")
    return folder, nets.write_halves(folder)


@pytest.fixture(scope="module")
def server(halves, tmp_path_factory):
    """Serves `net`, the tail behind its cut, and the look-up `table`."""
    nets = pytest.importorskip("runtimes.serving.nets_test")
    from runtimes.serving.server import ServerThread, Serving

    table = nets.write_look_up(tmp_path_factory.mktemp("table"))
    with ServerThread(Serving(artifacts=(halves[0], table))) as running:
        yield running


@pytest.fixture(scope="module")
def endpoint(server):
    """Where it is."""
    from runtimes.serving.contracts import Endpoint

    return Endpoint(host="127.0.0.1", port=server.port)
