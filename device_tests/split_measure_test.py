"""A request through both halves gives the whole's parts, with files as with functions, and says what is wrong."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import numpy as np
import pytest

from device_tests.split_frames import decode, encode, header, receive
from device_tests.split_measure import SplitRig, measure_split
from edge_deploy.core.errors import BadInput, DeviceError

LINK = {"uplink_bps": 1e9, "downlink_bps": 1e9, "rtt_s": 0.0}
X = {"x": np.arange(1000, dtype=np.float32).reshape(1, 1000)}


def twice(arrays):
    return {"middle": arrays["x"] * 2}


def test_parts_are_those_of_the_request_and_a_half_that_is_missing_takes_no_time() -> None:
    seen = []

    def tail(arrays):
        seen.append(arrays["middle"].copy())
        return {"y": arrays["middle"][:, :10] + 1}

    found = measure_split(twice, tail, X, **LINK, repeats=3, warm_up=1)
    assert len(found.total_s) == 3
    assert len(seen) == 4
    np.testing.assert_array_equal(seen[-1], X["x"] * 2)
    assert (found.up_bytes, found.down_bytes) == (4000, 40)
    assert found.wire_up_bytes > 4000
    for total, *parts in zip(found.total_s, found.edge_s, found.encode_s, found.wire_s, found.cloud_s, strict=True):
        assert 0 < sum(parts) <= total
    edge_only = measure_split(twice, None, X, **LINK, repeats=2)
    assert (edge_only.up_bytes, edge_only.wire_s, edge_only.cloud_s) == (0, (0.0, 0.0), (0.0, 0.0))
    cloud_only = measure_split(None, lambda arrays: twice(arrays), X, **LINK, repeats=2)
    assert (cloud_only.up_bytes, cloud_only.edge_s) == (4000, (0.0, 0.0))


def test_the_link_is_paid_for_and_a_rig_takes_one_condition_after_the_other() -> None:
    with SplitRig(twice, lambda arrays: {"y": arrays["middle"][:, :1]}) as rig:
        slow = rig.measure(X, uplink_bps=400_000, downlink_bps=1e6, rtt_s=0.02, repeats=1, warm_up=0)
        # 32 kbit at 400 kbit/s and 10 ms of delay: the proxy is never early, however late a busy machine makes it.
        assert slow.uplink_s[0] > 0.08
        assert slow.downlink_s[0] > 0.009
        with pytest.raises(BadInput, match="rate is 0"):
            rig.measure(X, uplink_bps=0, downlink_bps=1e6, rtt_s=0.02)


def test_a_loaded_edge_is_noted() -> None:
    found = measure_split(twice, None, X, **LINK, edge_load=0.5, repeats=2)
    assert any(note.startswith("load by") for note in found.notes)


def test_what_a_half_raises_reaches_the_caller() -> None:
    def broken(arrays):
        raise ValueError("no such layer")

    with pytest.raises(DeviceError, match="ValueError: no such layer"):
        measure_split(twice, broken, X, **LINK)
    with pytest.raises(ValueError, match="no such layer"):
        measure_split(broken, twice, X, **LINK)
    with pytest.raises(BadInput, match="neither an edge nor a cloud half"):
        measure_split(None, None, X, **LINK)
    with pytest.raises(BadInput, match="repeats = 0"):
        measure_split(twice, None, X, **LINK, repeats=0)


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    tf = pytest.importorskip("tensorflow")
    folder = tmp_path_factory.mktemp("halves")
    specs = {
        "head": (lambda x: {"middle": x * 2.0 + 1.0}, tf.TensorSpec((1, 1000), name="x")),
        "tail": (lambda middle: {"y": tf.reduce_sum(middle, axis=1)}, tf.TensorSpec((1, 1000), name="middle")),
    }
    for name, (function, spec) in specs.items():
        module = tf.Module()
        module.call = tf.function(function, input_signature=[spec])
        module.call.get_concrete_function()
        tf.saved_model.save(module, str(folder / name), signatures=module.call)
        converted = tf.lite.TFLiteConverter.from_saved_model(str(folder / name)).convert()
        (folder / f"{name}.tflite").write_bytes(converted)
    return folder / "head.tflite", folder / "tail.tflite"


def test_halves_in_files_run_in_processes_of_their_own_and_mix_with_functions(halves: tuple[Path, Path]) -> None:
    head, tail = halves
    found = measure_split(head, tail, X, **LINK, repeats=2)
    assert (found.up_bytes, found.down_bytes) == (4000, 4)
    mixed = measure_split(twice, tail, X, **LINK, repeats=1)
    assert mixed.up_bytes == 4000
    with pytest.raises(BadInput, match="the cloud half takes middle"):
        measure_split(None, tail, X, **LINK)
    with pytest.raises(BadInput, match="no such file"):
        measure_split(head, tail.with_name("missing.tflite"), X, **LINK)


def test_frames_keep_every_type_and_shape_and_refuse_what_is_none() -> None:
    generator = np.random.default_rng(0)
    arrays = {
        "a": generator.integers(-128, 127, (2, 3), dtype=np.int8),
        "b": generator.standard_normal((0, 5)),
        "c": np.float32(3.5) + np.zeros(()),
        "d": np.array([[True, False]]),
    }
    left, right = socket.socketpair()
    with left, right:
        left.sendall(b"".join((header(arrays, sent_s=1.5), *encode(arrays))))
        frame = receive(right)
        assert frame is not None and frame.header["sent_s"] == 1.5
        for name, value in decode(frame).items():
            assert (value.dtype, value.shape) == (arrays[name].dtype, arrays[name].shape)
            np.testing.assert_array_equal(value, arrays[name])
        left.sendall((1 << 30).to_bytes(4, "big"))
        with pytest.raises(DeviceError, match="a header of"):
            receive(right)
    with pytest.raises(BadInput, match="type object cannot be sent"):
        encode({"o": np.array([object()])})


@pytest.mark.parametrize(
    "told", ['{"tensors": [["x", "O", [1]]]}', '{"tensors": [["x", "<f4", [-1]]]}', "[]", "nonsense"]
)
def test_headers_that_lie_end_the_stream_and_not_the_process(told: str) -> None:
    left, right = socket.socketpair()
    with left, right:
        threading.Thread(target=left.sendall, args=(len(told).to_bytes(4, "big") + told.encode(),)).start()
        with pytest.raises(DeviceError, match="not a frame"):
            receive(right)
