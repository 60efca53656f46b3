"""Native runners on this machine: the same programs that devices run, without any way to a device between."""

import os

import numpy as np
import pytest

from device_tests.native_channel import NativeChannel
from device_tests.transports.local import LocalTransport
from edge_deploy.core.errors import BadInput, MissingExtra, ToolchainError, Unsupported
from runtimes.session import open_session

YARDSTICK = "models/yardstick_cnn_int8/cnn_int8.tflite"
RESNET = "models/mlperf_tiny_ic_resnet8/pretrainedResnet.tflite"
LOAD = {
    "do": "load",
    "backend": None,
    "signature": None,
    "threads": 1,
    "kernels": "default",
    "seed": 0,
    "inputs": None,
    "source": [],
}


@pytest.fixture
def worker():
    transport = LocalTransport()
    channel = NativeChannel(transport, isa=os.uname().machine, label="here")

    def load(model, **wishes):
        path = transport.push(model, f"{len(transport.pushed)}/{model.name}")
        try:
            return channel.ask({**LOAD, "path": path, **wishes}, timeout_s=120)
        except MissingExtra as missing:
            pytest.skip(str(missing))

    yield transport, channel, load
    channel.close()
    transport.close()


@pytest.mark.parametrize("threads", [1, 2])
def test_it_computes_what_the_session_computes_and_answers_as_a_worker(worker, data, threads):
    _, channel, load = worker
    told = load(data / RESNET, threads=threads)
    assert told["kernels"].endswith("XNNPACK, native runner, here")
    assert told["machine"]["isa"] == os.uname().machine
    warm = channel.ask({"do": "warm", "rounds": 2, "runs": 6, "min_seconds": 0}, timeout_s=60)
    assert warm["values_per_round"] >= 3
    assert all(value > 0 for value in warm["values_s"])
    plan = {key: warm[key] for key in ("values_per_round", "calls_per_value")}
    assert len(channel.ask({"do": "measure", **plan}, timeout_s=60)["values_s"]) == warm["values_per_round"]
    told = channel.ask({"do": "conditions", "window_s": 0.05}, timeout_s=60)
    assert 1 <= told["cores"] <= os.cpu_count()
    assert 0 <= told["state"]["busy_cores"] <= os.cpu_count()
    assert channel.ask({"do": "layers", "runs": 1, "repeats": 1}, timeout_s=60) == {"layer_s": None}
    here = open_session(data / RESNET, trusted=True)
    (info,), (out,) = channel.signature.inputs, channel.signature.outputs
    inputs = [
        {info.name: np.random.default_rng(k).uniform(0, 255, (1, 32, 32, 3)).astype(np.float32)} for k in range(5)
    ]
    for given, found in zip(inputs, channel.outputs(inputs, timeout_s=60), strict=True):
        np.testing.assert_allclose(found[out.name], here.run(given)[out.name], atol=1e-6)


def test_it_is_bound_to_the_processors_that_it_is_told(worker, data):
    _, channel, load = worker
    (cpu, *_) = sorted(os.sched_getaffinity(0))
    assert channel.ask({"do": "pin", "cpus": [cpu], "count": 1}, timeout_s=60) == {"cpus": [cpu]}
    assert load(data / YARDSTICK)["machine"]["cores"] == 1
    # Which are the fast ones this machine may not tell.
    assert len(channel.ask({"do": "pin", "cpus": None, "count": 1}, timeout_s=60)["cpus"]) <= 1


def test_a_batch_that_the_model_leaves_open_is_taken(worker, data):
    _, channel, load = worker
    told = load(data / RESNET, batch=3)
    assert told["batch"] == 3
    here = open_session(data / RESNET, trusted=True)
    (info,), (out,) = channel.signature.inputs, channel.signature.outputs
    given = {info.name: np.random.default_rng(0).uniform(0, 255, (3, 32, 32, 3)).astype(np.float32)}
    (found,) = channel.outputs([given], timeout_s=60)
    assert found[out.name].shape == (3, 10)
    np.testing.assert_allclose(found[out.name], here.run(given)[out.name], atol=1e-6)
    with pytest.raises(BadInput, match=r"loaded for inputs of shape \(\(3, 32, 32, 3\),\)"):
        channel.outputs([{info.name: given[info.name][:1]}], timeout_s=60)


def test_what_the_runtime_refuses_ends_the_request_and_not_the_runner(worker, data, tmp_path):
    _, channel, load = worker
    (tmp_path / "bad.tflite").write_bytes((data / YARDSTICK).read_bytes()[:5000])
    with pytest.raises(BadInput):
        load(tmp_path / "bad.tflite")
    load(data / YARDSTICK)
    with pytest.raises(BadInput, match="missing; it takes int8"):
        channel.outputs([{}], timeout_s=60)
    assert channel.ask({"do": "measure", "values_per_round": 1, "calls_per_value": 1}, timeout_s=60)["values_s"]


def test_wishes_that_no_native_runner_has_are_refused(worker, data):
    _, channel, load = worker
    with pytest.raises(BadInput, match="kernels = reference: the native runner has default and builtin"):
        load(data / YARDSTICK, kernels="reference")
    with pytest.raises(Unsupported, match="--backend onnxruntime: the native runner of this device is litert"):
        load(data / YARDSTICK, backend="onnxruntime")
    with pytest.raises(BadInput, match="threads = 0: must be at least 1"):
        load(data / YARDSTICK, threads=0)
    with pytest.raises(BadInput, match="unknown"):
        load(data / YARDSTICK, signature="nope")
    with pytest.raises(BadInput, match="was not pushed to the device"):
        channel.ask({**LOAD, "path": "/elsewhere/model.tflite"}, timeout_s=60)
    with pytest.raises(ToolchainError, match="TypeError"):
        channel.ask({"do": "load", "wrong": 1}, timeout_s=60)
