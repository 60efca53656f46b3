"""Streams of requests: from both ends."""

import contextlib
import threading

import numpy as np
import pytest

pytest.importorskip("runtimes.serving.nets_test")
import grpc

from runtimes.serving import nets_test as nets
from runtimes.serving.client import RemoteClient
from runtimes.serving.contracts import Cancellation, Endpoint
from runtimes.serving.errors import CloudError, CloudGone, CloudRefused, CloudTimedOut
from runtimes.serving.exchange import write_request
from runtimes.serving.limits import Limits
from runtimes.serving.messages import STREAM, message, method_path
from runtimes.serving.server import ServerThread, Serving
from runtimes.shaping.link import ShapedLink, constant_link
from runtimes.shaping.proxy import ShapedProxy

LONG_S = 30.0
OPEN = constant_link(uplink_bps=100e6, downlink_bps=100e6, rtt_s=0.001)
STALLED = ShapedLink(uplink_bps=(0.0,), downlink_bps=(0.0,), delay_s=(0.0,))


def request(name="7", rows=1):
    return write_request(nets.inputs(rows), model="net", version="", request_id=name)


def ask(client, seed=0, **more):
    arrays = nets.inputs(1 + seed % 5, seed=seed)
    found = client.infer(arrays, deadline_s=more.pop("deadline_s", LONG_S), cut="all-cloud", **more)
    np.testing.assert_array_equal(found["out"], nets.expected(arrays))


def test_each_request_of_a_stream_is_answered_in_turn_and_a_bad_one_ends_nothing(endpoint):
    with grpc.insecure_channel(endpoint.address) as channel:
        sent = [request("1"), b"nonsense", request("2", rows=3), b"", request("3")]
        answers = channel.stream_stream(method_path(STREAM))(iter(sent), timeout=LONG_S)
        found = [message("ModelStreamInferResponse").FromString(raw) for raw in answers]
    assert [each.infer_response.id for each in found] == ["1", "", "2", "", "3"]
    assert [each.error_message.partition(":")[0] for each in found] == ["", "INVALID_ARGUMENT", "", "NOT_FOUND", ""]


def test_a_client_gets_the_same_answers_and_errors_over_its_stream(endpoint):
    with RemoteClient(endpoint, artifact="net") as client:
        for seed in range(20):
            ask(client, seed, request_id=str(seed))
        with pytest.raises(CloudRefused, match="must be FP32"):
            client.infer({"a": np.zeros((1, 4)), "b": np.zeros((1, 4))}, deadline_s=LONG_S, cut="all-cloud")
        with pytest.raises(CloudRefused, match="'net@elsewhere' is unknown"):
            client.infer(nets.inputs(), deadline_s=LONG_S, cut="elsewhere")
        ask(client)


def test_threads_that_share_a_client_each_get_their_own_answers(endpoint):
    with RemoteClient(endpoint, artifact="net") as client:
        wrong = []

        def work(first):
            try:
                for seed in range(first, first + 40):
                    ask(client, seed, request_id=str(seed))
            except (CloudError, AssertionError) as error:
                wrong.append(error)

        threads = [threading.Thread(target=work, args=(100 * n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_a_stream_without_a_token_is_refused(halves):
    token = "a-token-of-enough-characters"
    with (
        ServerThread(Serving(artifacts=(halves[0],), tokens=(token,))) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        with pytest.raises(grpc.RpcError) as refused:
            list(channel.stream_stream(method_path(STREAM))(iter([request()]), timeout=LONG_S))
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        with RemoteClient(Endpoint(host="127.0.0.1", port=server.port, token=token), artifact="net") as client:
            for seed in range(3):
                ask(client, seed)


def test_a_stream_that_brings_no_request_is_ended(halves):
    """Slow-loris again: the message never comes, or never to its end."""
    stop = threading.Event()

    def nothing():
        stop.wait(LONG_S)
        yield from ()

    with (
        ServerThread(Serving(artifacts=(halves[0],), limits=Limits(receive_s=0.05))) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        streams = [channel.stream_stream(method_path(STREAM))(nothing(), timeout=LONG_S) for _ in range(10)]
        assert [list(stream) for stream in streams] == [[]] * 10
        assert {stream.code() for stream in streams} == {grpc.StatusCode.OK}
        stop.set()


def test_requests_on_streams_that_the_server_keeps_ending_are_answered_or_time_out(halves):
    with (
        ServerThread(Serving(artifacts=(halves[0],), limits=Limits(receive_s=0.004))) as server,
        RemoteClient(Endpoint(host="127.0.0.1", port=server.port), artifact="net") as client,
    ):
        answered = 0
        for seed in range(200):
            try:
                ask(client, seed)
                answered += 1
            except CloudTimedOut:
                pass  # an ordinary call that took longer than the server's few milliseconds to bring its message
        assert answered > 0


def test_a_server_without_room_for_one_more_stream_answers_calls(halves):
    with (
        ServerThread(Serving(artifacts=(halves[0],), limits=Limits(at_once=4))) as server,
        contextlib.ExitStack() as all_,
    ):
        endpoint = Endpoint(host="127.0.0.1", port=server.port)
        clients = [all_.enter_context(RemoteClient(endpoint, artifact="net")) for _ in range(3)]
        for seed in range(12):  # two have streams, the third calls
            ask(clients[seed % 3], seed)


def test_a_server_that_stops_ends_the_streams_and_the_client_finds_the_next_one(halves):
    serving = Serving(artifacts=(halves[0],), limits=Limits(drain_s=LONG_S))
    with ServerThread(serving) as server, grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stop = threading.Event()

        def one():
            yield request()
            stop.wait(LONG_S)

        stream = channel.stream_stream(method_path(STREAM))(one(), timeout=2 * LONG_S)
        next(stream)
        server.close()
        assert list(stream) == []
        assert stream.code() is grpc.StatusCode.OK
        stop.set()


def test_an_answer_that_does_not_come_is_given_up_at_the_deadline_and_when_it_is_cancelled(endpoint):
    with ShapedProxy((endpoint.host, endpoint.port), OPEN) as proxy:
        host, port = proxy.address
        with RemoteClient(Endpoint(host=host, port=port), artifact="net") as client:
            ask(client)
            ask(client)
            proxy.follow(STALLED)
            with pytest.raises(CloudTimedOut):
                ask(client, deadline_s=0.05)
            proxy.follow(OPEN)
            ask(client)
            ask(client)
            proxy.follow(STALLED)
            cancel = Cancellation()
            threading.Timer(0.05, cancel.ask).start()
            with pytest.raises(CloudGone, match="cancelled"):
                ask(client, cancel=cancel)
            proxy.follow(OPEN)
            ask(client)
