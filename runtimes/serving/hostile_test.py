import contextlib
import threading

import grpc
import numpy as np
import pytest

pytest.importorskip("runtimes.serving.nets_test")

from runtimes.serving import nets_test as nets
from runtimes.serving.client import RemoteClient
from runtimes.serving.contracts import Endpoint
from runtimes.serving.errors import CloudError, CloudGone
from runtimes.serving.exchange import write_request
from runtimes.serving.hostile_peers import connect, mutated
from runtimes.serving.limits import Limits
from runtimes.serving.messages import METHODS, method_path
from runtimes.serving.server import ServerThread, Serving

LONG_S = 60.0
MESSAGES, CONNECTIONS, STALLED = 600, 60, 40


@pytest.fixture(scope="module")
def server(halves):
    with ServerThread(
        Serving(artifacts=(halves[0],), limits=Limits(receive_s=1.0, handshake_s=1.0, silent_s=1.0))
    ) as running:
        yield running


@pytest.fixture(scope="module")
def endpoint(server):
    return Endpoint(host="127.0.0.1", port=server.port)


@pytest.fixture(autouse=True)
def served(endpoint):
    """An honest client asks all the time, before, while and after, and gets right answers."""
    with RemoteClient(endpoint, artifact="net") as client:

        def ask(seed):
            arrays = nets.inputs(1 + seed % 5, seed=seed)
            found = client.infer(arrays, deadline_s=LONG_S, cut="all-cloud")
            np.testing.assert_array_equal(found["out"], nets.expected(arrays))

        ask(0)
        stop, wrong = threading.Event(), []

        def go_on():
            seed = 0
            while not stop.wait(0.01):
                seed += 1
                try:
                    ask(seed)
                except (CloudError, AssertionError) as error:
                    wrong.append(error)

        thread = threading.Thread(target=go_on)
        thread.start()
        yield
        stop.set()
        thread.join()
        ask(1)
        assert wrong == []


def test_random_and_mutated_messages_are_each_answered_with_a_status(endpoint):
    valid = write_request(nets.inputs(2), model="net", version="", request_id="7")
    rng = np.random.default_rng(0)
    seen = set()
    with grpc.insecure_channel(endpoint.address) as channel:
        methods = list(METHODS)
        for n in range(MESSAGES):
            method = "ModelInfer" if n % 4 else methods[int(rng.integers(len(methods)))]
            try:
                channel.unary_unary(method_path(method))(mutated(rng, valid), timeout=LONG_S)
                seen.add("OK")
            except grpc.RpcError as error:
                seen.add(error.code().name)
    assert seen <= {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED"}
    assert len(seen) >= 3


def test_connections_that_say_nonsense_or_nothing_hold_nobody_up(endpoint):
    rng = np.random.default_rng(1)
    peers = [connect(rng, (endpoint.host, endpoint.port)) for _ in range(CONNECTIONS)]
    ended = 0
    for peer in filter(None, peers):
        # The server ends all of them, sooner or later; at most what it tells them comes before.
        peer.settimeout(LONG_S)
        with contextlib.suppress(OSError):
            while peer.recv(65536):
                pass
        peer.close()
        ended += 1
    assert ended == sum(peer is not None for peer in peers)


def test_requests_that_never_come_to_their_message_are_ended(endpoint):
    """Slow-loris: an honest beginning of a request, and then nothing."""
    stop = threading.Event()

    def nothing():
        stop.wait(LONG_S)
        yield from ()

    with grpc.insecure_channel(endpoint.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        begun = [channel.stream_unary(method_path("ModelInfer")).future(nothing()) for _ in range(STALLED)]
        codes = {call.exception(timeout=LONG_S).code() for call in begun}
        stop.set()
    assert codes == {grpc.StatusCode.DEADLINE_EXCEEDED}


def test_more_connections_than_allowed_are_closed_and_the_others_go_on(halves):
    with (
        ServerThread(Serving(artifacts=(halves[0],), limits=Limits(connections=2))) as server,
        contextlib.ExitStack() as all_,
    ):
        endpoint = Endpoint(host="127.0.0.1", port=server.port)
        clients = [all_.enter_context(RemoteClient(endpoint, artifact="net")) for _ in range(4)]
        ready = []
        for client in clients:
            try:
                ready.append(client.is_ready(deadline_s=LONG_S))
            except CloudGone:
                ready.append(False)
        assert ready == [True, True, False, False]
        assert clients[0].is_ready(deadline_s=LONG_S)
