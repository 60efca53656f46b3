import asyncio
import os
import re
import signal
import urllib.request

import numpy as np
import pytest

pytest.importorskip("runtimes.serving.nets_test")

from edge_deploy.core.errors import BadInput, DeviceError
from runtimes.serving import nets_test as nets
from runtimes.serving.async_client import AsyncRemoteClient
from runtimes.serving.contracts import Endpoint
from runtimes.serving.errors import CloudGone, CloudTimedOut
from runtimes.serving.server import Serving
from runtimes.serving.workers import Workers

LONG_S = 60.0


async def answered(endpoint, seed=0):
    """Asked over a connection of its own, until somebody answers."""
    while True:
        async with AsyncRemoteClient(endpoint, artifact="net") as client:
            try:
                return await client.infer(nets.inputs(seed=seed), deadline_s=LONG_S, cut="all-cloud")
            except (CloudGone, CloudTimedOut):
                await asyncio.sleep(0.01)


def test_a_worker_that_dies_is_replaced_and_the_counters_are_summed(halves):
    told = []

    async def inside():
        serving = Serving(artifacts=(halves[0],))
        workers = Workers(serving, count=2, metrics=("127.0.0.1", 0), told=told.append)
        started = await workers.start()
        try:
            endpoint = Endpoint(host="127.0.0.1", port=started.port)
            for seed in range(8):
                np.testing.assert_array_equal(
                    (await answered(endpoint, seed))["out"], nets.expected(nets.inputs(seed=seed))
                )
            page = f"http://127.0.0.1:{started.metrics_port}/metrics"
            counts = await asyncio.to_thread(lambda: urllib.request.urlopen(page, timeout=LONG_S).read().decode())
            assert sum(float(n) for n in re.findall(r"edge_deploy_requests_total\{.*\} (\S+)", counts)) >= 8
            killed = workers.process_ids[0]
            os.kill(killed, signal.SIGKILL)
            while killed in workers.process_ids or len(workers.process_ids) < 2:
                await answered(endpoint)
            assert workers.restarts == 1
            await answered(endpoint)
        finally:
            await workers.stop()
            await workers.stop()
        return workers.process_ids

    assert asyncio.run(inside()) == ()
    assert any("another one is started" in text for text in told)


def test_what_cannot_be_served_is_told_before_any_process_starts(halves, tmp_path):
    with pytest.raises(BadInput, match="no artifact and no folder"):
        Workers(Serving(artifacts=(tmp_path,)))
    with pytest.raises(BadInput, match="workers = 0"):
        Workers(Serving(artifacts=(halves[0],)), count=0)

    async def nowhere():
        await Workers(Serving(artifacts=(halves[0],), host="192.0.2.1", tokens=("x" * 32,))).start()

    with pytest.raises(DeviceError, match=r"192.0.2.1:0 cannot be listened on"):
        asyncio.run(nowhere())
