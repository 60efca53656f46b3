import asyncio
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest

from edge_deploy.core.errors import BadInput, ToolchainError
from runtimes.serving.batching import Batching, Queue, Turns
from runtimes.serving.errors import CloudGone, CloudOverloaded

FAR_S = 1e6


class Doubling:
    """Doubles; refuses -13; counts the rows of each run; stands still until it is let go."""

    def __init__(self, *, goes: bool = True, quick: bool = False) -> None:
        self.rows: list[int] = []
        self.go = Event()
        if goes:
            self.go.set()
        self.quick = quick

    def __call__(self, arrays):
        self.go.wait()
        self.rows.append(len(arrays["x"]))
        if (arrays["x"] == -13).any():
            raise BadInput("-13 is no number.")
        if (arrays["x"] == -99).any():
            raise ToolchainError("the runtime failed.")
        return {"y": 2 * arrays["x"]}

    def is_quick(self, rows):
        return self.quick


def x(*values):
    return {"x": np.array(values, np.float32)}


def run(body, *runs, turns=4, **batching):
    """What `body(queue)` gives, with these sessions."""

    async def inside():
        with ThreadPoolExecutor(4) as threads:
            queue = Queue(runs, batching=Batching(**batching), threads=threads, turns=Turns(turns))
            return await body(queue)

    return asyncio.run(inside())


async def started(queue, count):
    """Until only so many wait."""
    while queue.waiting > count:
        await asyncio.sleep(0)


@pytest.mark.parametrize("quick", [False, True])
def test_requests_that_wait_are_run_together_and_everybody_gets_their_own(quick):
    session = Doubling(goes=quick, quick=quick)

    async def body(queue):
        asked = [asyncio.ensure_future(queue.infer(x(n, n + 0.5), rows=2, deadline_s=FAR_S)) for n in range(9)]
        await asyncio.sleep(0)
        session.go.set()
        return await asyncio.gather(*asked)

    for n, answer in enumerate(run(body, session, rows=8)):
        np.testing.assert_array_equal(answer["y"], [2 * n, 2 * n + 1])
    assert session.rows == ([2] * 9 if quick else [2, 8, 8])


def test_a_bad_request_spoils_no_other_of_its_batch():
    session = Doubling(goes=False)

    async def body(queue):
        values = (1, 2, -13, 4, -99)
        asked = [asyncio.ensure_future(queue.infer(x(n), deadline_s=FAR_S)) for n in values]
        await asyncio.sleep(0)
        session.go.set()
        return await asyncio.gather(*asked, return_exceptions=True)

    first, second, bad, fourth, failed = run(body, session, rows=8)
    assert [answer["y"][0] for answer in (first, second, fourth)] == [2, 4, 8]
    assert isinstance(bad, BadInput) and isinstance(failed, ToolchainError)


def test_a_large_request_is_spread_over_inferences_and_answered_whole():
    sessions = Doubling(), Doubling()

    async def body(queue):
        return await queue.infer(x(*range(21)), rows=21, deadline_s=FAR_S)

    np.testing.assert_array_equal(run(body, *sessions, rows=8)["y"], 2 * np.arange(21))
    assert sorted(sessions[0].rows + sessions[1].rows) == [5, 8, 8]


def test_more_requests_than_may_wait_are_refused_at_once_and_the_others_answered():
    session = Doubling(goes=False)

    async def body(queue):
        asked = [asyncio.ensure_future(queue.infer(x(n), deadline_s=FAR_S)) for n in range(10)]
        await asyncio.sleep(0)
        refused = [task for task in asked if task.done()]
        session.go.set()
        await asyncio.gather(*asked, return_exceptions=True)
        return refused, asked

    refused, asked = run(body, session, waiting=4)
    assert [type(task.exception()) for task in refused] == [CloudOverloaded] * 5
    assert [task.result()["y"][0] for task in asked if task not in refused] == [0, 2, 4, 6, 8]


def test_what_nobody_waits_for_any_more_is_not_run():
    session = Doubling(goes=False)

    async def body(queue):
        loop = asyncio.get_running_loop()
        first = asyncio.ensure_future(queue.infer(x(1), deadline_s=FAR_S))
        late = asyncio.ensure_future(queue.infer(x(2), deadline_s=loop.time()))
        gone = asyncio.ensure_future(queue.infer(x(3), deadline_s=FAR_S))
        last = asyncio.ensure_future(queue.infer(x(4), deadline_s=FAR_S))
        await asyncio.sleep(0)
        gone.cancel()
        session.go.set()
        return await asyncio.gather(first, late, gone, last, return_exceptions=True)

    first, late, gone, last = run(body, session)
    assert (first["y"][0], last["y"][0]) == (2, 8)
    assert isinstance(late, TimeoutError) and isinstance(gone, asyncio.CancelledError)
    assert session.rows == [1, 1]


def test_a_batch_waits_for_others_until_it_is_full_or_the_time_is_over():
    session = Doubling()

    async def body(queue):
        asked = [asyncio.ensure_future(queue.infer(x(n), deadline_s=FAR_S)) for n in range(4)]
        await asyncio.gather(*asked)  # full: nobody waits an hour
        return None

    run(body, session, rows=4, wait_s=3600.0)
    assert session.rows == [4]
    alone = Doubling()
    assert run(lambda queue: queue.infer(x(5), deadline_s=FAR_S), alone, rows=4, wait_s=0.001)["y"][0] == 10


def test_closing_answers_what_was_taken_and_takes_nothing_more():
    session = Doubling(goes=False)

    async def body(queue):
        asked = [asyncio.ensure_future(queue.infer(x(n), deadline_s=FAR_S)) for n in range(3)]
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(queue.close())
        await asyncio.sleep(0)
        with pytest.raises(CloudGone, match="being unloaded"):
            await queue.infer(x(9), deadline_s=FAR_S)
        session.go.set()
        await closing
        return await asyncio.gather(*asked)

    assert [answer["y"][0] for answer in run(body, session)] == [0, 2, 4]


def test_models_share_the_turns_of_a_process_and_none_is_forgotten():
    async def inside():
        with ThreadPoolExecutor(4) as threads:
            turns = Turns(1)
            queues = [Queue([Doubling()], batching=Batching(), threads=threads, turns=turns) for _ in range(5)]
            asked = [queue.infer(x(n), deadline_s=FAR_S) for n in range(20) for queue in queues]
            return [answer["y"][0] for answer in await asyncio.gather(*asked)]

    assert asyncio.run(inside()) == [2 * n for n in range(20) for _ in range(5)]


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(BadInput, match="at least 1"):
        Batching(rows=0)


def test_an_inference_that_does_not_end_is_seen_and_nobody_waits_for_it_beyond_the_deadline():
    session = Doubling(goes=False)

    async def body(queue):
        begun_s = asyncio.get_running_loop().time()
        assert queue.running_since_s is None
        with pytest.raises(TimeoutError):
            await queue.infer(x(1), deadline_s=begun_s + 0.01)
        stuck_since_s = queue.running_since_s
        session.go.set()
        await queue.close()
        return begun_s, stuck_since_s, queue.running_since_s

    begun_s, since_s, after = run(body, session)
    assert begun_s <= since_s and after is None
