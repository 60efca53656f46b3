import asyncio
import threading

import numpy as np
import pytest

pytest.importorskip("runtimes.serving.nets_test")
import grpc

from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo
from runtimes.serving import nets_test as nets
from runtimes.serving.async_client import AsyncRemoteClient
from runtimes.serving.client import RemoteClient
from runtimes.serving.contracts import Endpoint
from runtimes.serving.errors import CloudGone, CloudOverloaded, CloudRefused, CloudTimedOut
from runtimes.serving.limits import Limits
from runtimes.serving.messages import message, method_path
from runtimes.serving.server import ServerThread, Serving
from runtimes.serving.shelf import Loading

LONG_S = 30.0


@pytest.fixture(scope="module")
def client(endpoint, halves):
    with RemoteClient(endpoint, artifact="net", digest=halves[1]) as made:
        yield made


@pytest.fixture(scope="module")
def call(endpoint):
    """Any method, as a client of another maker would call it."""
    with grpc.insecure_channel(endpoint.address) as channel:

        def ask(method, request):
            raw = channel.unary_unary(method_path(method))(request.SerializeToString(), timeout=LONG_S)
            return message(method + "Response").FromString(raw)

        yield ask


@pytest.mark.parametrize("rows", [1, 3, 8, 21])
def test_the_whole_model_answers_any_number_of_rows(client, rows):
    found = client.infer(nets.inputs(rows), deadline_s=LONG_S, cut="all-cloud", request_id="r")
    np.testing.assert_array_equal(found["out"], nets.expected(nets.inputs(rows)))


def test_the_tail_behind_a_cut_is_a_model_of_its_own(client, halves):
    found = client.infer(nets.inputs(), deadline_s=LONG_S, cut=nets.CUT)
    np.testing.assert_array_equal(found["out"], nets.expected(nets.inputs()))
    told = client.metadata(deadline_s=LONG_S)
    assert (told.digest, set(told.cuts)) == (halves[1], {"all-cloud", nets.CUT})
    segment = client.segment(nets.CUT, deadline_s=LONG_S)
    assert segment.inputs[0] == TensorInfo(name="b", shape=(1, 4), dtype="float32")
    assert client.is_ready(deadline_s=LONG_S)


def test_what_the_model_does_not_take_is_refused_by_name(client, endpoint):
    for changed, said in (
        ({"a": np.zeros((1, 4), np.float32)}, "net takes b, a"),
        ({**nets.inputs(), "c": np.zeros(1, np.float32)}, "inputs: a, b, c"),
        ({name: array.astype(np.float64) for name, array in nets.inputs().items()}, "must be FP32"),
        ({name: array[:, :3] for name, array in nets.inputs().items()}, r"FP32 \[1, 3\], must be FP32 \[-1, 4\]"),
        ({"a": np.zeros((2, 4), np.float32), "b": np.zeros((3, 4), np.float32)}, "have 2, 3 rows"),
    ):
        with pytest.raises(CloudRefused, match=said):
            client.infer(changed, deadline_s=LONG_S, cut="all-cloud")
    with pytest.raises(CloudRefused, match="'net@elsewhere' is unknown"):
        client.infer(nets.inputs(), deadline_s=LONG_S, cut="elsewhere")
    with RemoteClient(endpoint, artifact="net", digest="00" * 32) as other:
        with pytest.raises(CloudRefused, match="version '0000"):
            other.infer(nets.inputs(), deadline_s=LONG_S, cut="all-cloud")
        with pytest.raises(CloudRefused, match="of version"):
            other.metadata(deadline_s=LONG_S)
    with RemoteClient(endpoint, artifact="nett") as other, pytest.raises(CloudRefused, match="it has net, table"):
        other.metadata(deadline_s=LONG_S)


def test_an_id_outside_the_table_is_its_senders_error_and_the_next_request_is_answered(endpoint):
    with RemoteClient(endpoint, artifact="table") as table:
        ids = {"ids": np.array([5], np.int32)}
        before = table.infer(ids, deadline_s=LONG_S, cut="all-cloud")["embedding"]
        with pytest.raises(CloudRefused, match="out of"):
            table.infer({"ids": np.array([1000], np.int32)}, deadline_s=LONG_S, cut="all-cloud")
        after = table.infer(ids, deadline_s=LONG_S, cut="all-cloud")["embedding"]
        np.testing.assert_array_equal(before, after)


def test_a_boundary_that_was_coded_is_decoded_there(endpoint, halves):
    boundary = tuple(TensorInfo(name=name, shape=(1, 4), dtype="float32") for name in ("b", "a"))
    with RemoteClient(endpoint, artifact="net", boundaries={nets.CUT: boundary}) as client:
        found = client.infer(nets.inputs(), deadline_s=LONG_S, cut=nets.CUT, codec="raw")
        wide = {name: np.tile(array, (8, 4))[:1, :4] for name, array in nets.inputs().items()}
        coded = client.infer(wide, deadline_s=LONG_S, cut=nets.CUT, codec="requantize:int8")
        np.testing.assert_allclose(coded["out"], found["out"], atol=0.5)
        with pytest.raises(BadInput, match="unknown"):
            client.infer(wide, deadline_s=LONG_S, cut=nets.CUT, codec="zip")


def test_clients_of_other_makers_get_typed_contents_health_and_a_choice_of_outputs(call, halves):
    request = message("ModelInferRequest")(model_name="net", id="7")
    for name, array in nets.inputs(2).items():
        tensor = request.inputs.add(name=name, datatype="FP32", shape=array.shape)
        tensor.contents.fp32_contents.extend(array.reshape(-1).tolist())
    request.outputs.add(name="out")
    answer = call("ModelInfer", request)
    found = np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(2, 3)
    np.testing.assert_array_equal(found, nets.expected(nets.inputs(2)))
    assert (answer.id, answer.model_version) == ("7", halves[1])
    assert call("ServerLive", message("ServerLiveRequest")()).live
    assert call("ServerReady", message("ServerReadyRequest")()).ready
    assert call("ModelReady", message("ModelReadyRequest")(name="net")).ready
    assert not call("ModelReady", message("ModelReadyRequest")(name="nothing")).ready
    assert call("ServerMetadata", message("ServerMetadataRequest")()).name == "edge-deploy"
    request.outputs[0].name = "other"
    with pytest.raises(grpc.RpcError) as refused:
        call("ModelInfer", request)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_the_health_service_of_grpc_answers_too(endpoint):
    with grpc.insecure_channel(endpoint.address) as channel:
        assert channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=LONG_S) == b"\x08\x01"


def test_many_threads_share_one_client_and_get_their_own_answers(client):
    wrong = []

    def ask(seed):
        for n in range(20):
            arrays = nets.inputs(1 + n % 4, seed=100 * seed + n)
            found = client.infer(arrays, deadline_s=LONG_S, cut="all-cloud", request_id=f"{seed}-{n}")
            if not np.array_equal(found["out"], nets.expected(arrays)):
                wrong.append((seed, n))

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_from_an_event_loop_the_same_answers_come(endpoint, halves):
    async def ask():
        async with AsyncRemoteClient(endpoint, artifact="net", digest=halves[1]) as client:
            asked = [
                client.infer(nets.inputs(seed=n), deadline_s=LONG_S, cut="all-cloud", request_id=str(n))
                for n in range(30)
            ]
            found = await asyncio.gather(*asked)
            assert set((await client.metadata(deadline_s=LONG_S)).cuts) == {"all-cloud", nets.CUT}
            assert (await client.segment(nets.CUT, deadline_s=LONG_S)).version == halves[1]
            assert await client.is_ready(deadline_s=LONG_S)
            with pytest.raises(CloudRefused, match="unknown"):
                await client.infer(nets.inputs(), deadline_s=LONG_S, cut="elsewhere")
        with pytest.raises(CloudGone, match="is closed"):
            await client.is_ready(deadline_s=LONG_S)
        return found

    for n, found in enumerate(asyncio.run(ask())):
        np.testing.assert_array_equal(found["out"], nets.expected(nets.inputs(seed=n)))


def test_messages_above_the_limit_are_refused_without_being_read(halves):
    with ServerThread(Serving(artifacts=(halves[0],), limits=Limits(message_bytes=2000, rows=8))) as server:
        endpoint = Endpoint(host="127.0.0.1", port=server.port)
        with RemoteClient(endpoint, artifact="net") as client:
            with pytest.raises(CloudRefused, match="larger than max"):
                client.infer(nets.inputs(100), deadline_s=LONG_S, cut="all-cloud")
            with pytest.raises(CloudRefused, match="at most 8 in one request"):
                client.infer(nets.inputs(9), deadline_s=LONG_S, cut="all-cloud")
            client.infer(nets.inputs(8), deadline_s=LONG_S, cut="all-cloud")


def test_a_compressed_message_does_not_grow_beyond_the_limit(halves):
    with ServerThread(Serving(artifacts=(halves[0],), limits=Limits(message_bytes=100_000))) as server:
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            ask = channel.unary_unary(method_path("ModelInfer"))
            with pytest.raises(grpc.RpcError) as refused:
                ask(bytes(20_000_000), timeout=LONG_S, compression=grpc.Compression.Gzip)
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "larger than max" in refused.value.details()
        with RemoteClient(Endpoint(host="127.0.0.1", port=server.port), artifact="net") as client:
            client.infer(nets.inputs(), deadline_s=LONG_S, cut="all-cloud")


def test_a_server_that_drains_answers_what_it_took_and_nothing_after(halves):
    # A batch that waits for more holds a request in the server while it is told to stop.
    loading = Loading(wait_s=1.0, rows=8)
    server = ServerThread(Serving(artifacts=(halves[0],), loading=loading))
    endpoint = Endpoint(host="127.0.0.1", port=server.port)
    answers = []
    with RemoteClient(endpoint, artifact="net") as client:
        client.infer(nets.inputs(8), deadline_s=LONG_S, cut="all-cloud")  # loads; a full batch does not wait
        asking = threading.Thread(
            target=lambda: answers.append(client.infer(nets.inputs(), deadline_s=LONG_S, cut="all-cloud"))
        )
        asking.start()
        while asking.is_alive() and not held(server):
            pass
        server.close()
        asking.join()
        np.testing.assert_array_equal(answers[0]["out"], nets.expected(nets.inputs()))
        with pytest.raises((CloudGone, CloudTimedOut)):
            client.infer(nets.inputs(), deadline_s=LONG_S, cut="all-cloud")


def held(server) -> bool:
    return b"edge_deploy_requests_held 1.0" in server.server.metrics.text()


def test_a_server_with_more_requests_than_it_may_hold_says_so_at_once(halves):
    found = []

    def ask(client):
        try:
            found.append(client.infer(nets.inputs(), deadline_s=LONG_S, cut="all-cloud"))
        except CloudOverloaded as error:
            found.append(error)

    serving = Serving(artifacts=(halves[0],), loading=Loading(wait_s=0.3, rows=8, waiting=1))
    with (
        ServerThread(serving) as server,
        RemoteClient(Endpoint(host="127.0.0.1", port=server.port), artifact="net") as client,
    ):
        client.infer(nets.inputs(8), deadline_s=LONG_S, cut="all-cloud")
        threads = [threading.Thread(target=ask, args=(client,)) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 12
    assert all(isinstance(each, CloudOverloaded) or "out" in each for each in found)
    assert any("out" in each for each in found if not isinstance(each, CloudOverloaded))


def test_requests_of_more_bytes_than_may_be_held_are_overload_and_nothing_stays_held(halves):
    with (
        ServerThread(Serving(artifacts=(halves[0],), limits=Limits(held_bytes=2000))) as server,
        RemoteClient(Endpoint(host="127.0.0.1", port=server.port), artifact="net") as client,
    ):
        for _ in range(5):
            client.infer(nets.inputs(8), deadline_s=LONG_S, cut="all-cloud")
            with pytest.raises(CloudOverloaded, match="as many bytes of requests as it may"):
                client.infer(nets.inputs(100), deadline_s=LONG_S, cut="all-cloud")


def test_nobody_there_is_gone_and_not_a_timeout():
    with RemoteClient(Endpoint(host="127.0.0.1", port=1), artifact="net") as client, pytest.raises(CloudGone):
        client.infer(nets.inputs(), deadline_s=LONG_S, cut="all-cloud")
