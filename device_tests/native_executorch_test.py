"""ExecuTorch programs by their native runner: here, and on emulated ARM cores."""

import os

import numpy as np
import pytest

from device_tests.device_list import connect, find_device
from device_tests.device_session import open_on_device
from device_tests.input_sets import random_input_sets
from device_tests.native_channel import NativeChannel
from device_tests.transports.local import LocalTransport
from edge_deploy.core.errors import BadInput, DeviceError, MissingExtra, ToolchainError
from runtimes.runners.bundle import runner_bundle
from runtimes.session import open_session

TABLE_ROWS = 400_000
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
def opened():
    transport = LocalTransport()
    channel = NativeChannel(transport, isa=os.uname().machine, label="here")

    def load(model):
        path = transport.push(model, f"{len(transport.pushed)}/{model.name}")
        try:
            return channel.ask({**LOAD, "path": path}, timeout_s=120)
        except MissingExtra as missing:
            pytest.skip(str(missing))

    yield transport, channel, load
    channel.close()
    transport.close()


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """A small INT8 CNN as an ExecuTorch program for XNNPACK."""
    torch = pytest.importorskip("torch")
    exir = pytest.importorskip("executorch.exir")
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, stride=2, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(8, 8, 3, padding=1, groups=8),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(8 * 8 * 8, 10),
    ).eval()
    sample = (torch.randn(1, 3, 16, 16),)
    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    prepared = prepare_pt2e(torch.export.export(net, sample).module(), quantizer)
    for _ in range(4):
        prepared(torch.randn(1, 3, 16, 16))
    exported = torch.export.export(convert_pt2e(prepared), sample)
    lowered = exir.to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()]).to_executorch()
    path = tmp_path_factory.mktemp("program") / "net.pte"
    path.write_bytes(lowered.buffer)
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A program whose one look-up reads a table of 12.8 MB."""
    torch = pytest.importorskip("torch")
    exir = pytest.importorskip("executorch.exir")
    torch.manual_seed(0)

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Embedding(TABLE_ROWS, 8)

        def forward(self, ids):
            return self.table(ids).sum(1)

    exported = torch.export.export(Net().eval(), (torch.zeros(1, 4, dtype=torch.int64),))
    path = tmp_path_factory.mktemp("table") / "table.pte"
    path.write_bytes(exir.to_edge_transform_and_lower(exported).to_executorch().buffer)
    return path


@pytest.mark.parametrize("core", ["cortex-a53", "cortex-a76"])
def test_int8_on_arm_is_bit_for_bit_that_of_this_machine(program, core):
    try:
        connect(find_device(f"qemu:arm64-{core}")).close()
        runner_bundle("executorch", "aarch64")
    except (MissingExtra, ToolchainError) as missing:
        pytest.skip(str(missing))
    here = open_session(program, trusted=True)
    sets = random_input_sets(here.signature, seed=11)[:12]
    with open_on_device(program, device=f"qemu:arm64-{core}") as there:
        answers = there.run_many(sets)
        assert there.kernels.endswith(f"XNNPACK+portable, native runner, emulated {core} (qemu)")
    name = here.signature.outputs[0].name
    want = np.stack([here.run(each)[name] for each in sets])
    assert np.ptp(want) > 0
    np.testing.assert_array_equal(np.stack([each[name] for each in answers]), want)


def test_a_table_is_mapped_and_not_pulled_into_memory(opened, table):
    _, channel, load = opened
    told = load(table)
    ids = [{"input_0": np.array([[k, 1000 * k, 7, 9]], np.int64)} for k in range(20)]
    found = channel.outputs(ids, timeout_s=60)
    here = open_session(table, trusted=True)
    np.testing.assert_allclose(found[3]["output_0"], here.run(ids[3])["output_0"], atol=1e-6)
    state = channel.ask({"do": "state"}, timeout_s=60)
    grown = state["memory_peak"]["anonymous_bytes"] - told["memory_base"]["anonymous_bytes"]
    assert table.stat().st_size == pytest.approx(TABLE_ROWS * 8 * 4, rel=0.01)
    assert grown < table.stat().st_size / 3
    assert state["peak_rss_bytes"] > 0


def test_a_damaged_program_takes_only_its_runner_along(opened, table, tmp_path):
    _, _, load = opened
    data = bytearray(table.read_bytes())
    data[60:2000] = b"\xff" * 1940
    (tmp_path / "bad.pte").write_bytes(data)
    with pytest.raises((BadInput, DeviceError)):
        load(tmp_path / "bad.pte")
    assert load(table)["signature"] == "forward"
