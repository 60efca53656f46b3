"""The simulation itself: one loop over requests that Python runs as it stands and numba compiles.

Arithmetic only, on flat arrays, so that both give the same bits. Everything else (what the arrays mean to people,
drawing arrivals, policies) lives in the neighbouring files.

The model. The edge is one FIFO server: it runs head halves, pays for switches, and runs what has to be finished
locally. The uplink is one FIFO server whose rate follows the trace. The cloud is a FIFO queue in front of `workers`
equal servers that may form batches of neighbouring requests with the same cut. Answers come back side by side over the
downlink. A request that has no answer when its time is up is finished on the edge; what it still had on the uplink is
dropped. How slow a busy device is, is read off the trace when a half begins.
"""

from __future__ import annotations

import numpy as np

__all__ = ["serve"]

# Rows of `link`, one column a trace entry.
UPLINK, DOWNLINK, RTT, EDGE_FACTOR, CLOUD_FACTOR, QUEUE = range(6)
# Rows of `cuts`, one column a cut.
EDGE_S, ENCODE_S, UP_BITS, CLOUD_S, DOWN_BITS, CROSSES, EXIT_SHARE, REST_S = range(8)
# Rows of `out`, one column a request; PARTS of them add up to the latency, then comes the moment of the answer.
EDGE_WAIT, EDGE, ENCODE, LINK_WAIT, SEND, ROUND_TRIP, CLOUD_WAIT, CLOUD, RECEIVE, TIMEOUT, LOCAL_WAIT, LOCAL, DONE = (
    range(13)
)
# Entries of `clock`.
EDGE_FREE, UPLINK_FREE, CLOUD_READY = range(3)
# Entries of `at`.
NEXT, SWITCH, EDGE_ENTRY, UPLINK_ENTRY, CLOUD_ENTRY, FAILURE, LATE_HEAD, LATE_TAIL, WAIT_HEAD, WAIT_TAIL = range(10)
# Values of `how`.
OPEN, ON_EDGE, BY_CLOUD, FELL_BACK, LOST = range(5)


def serve(  # one loop: numba inlines it, and Python runs it without a call for each request
    until: float,
    stop: int,
    arrival: np.ndarray,
    cut_of: np.ndarray,
    draw: np.ndarray,
    switch_at: np.ndarray,
    switch_s: np.ndarray,
    switches: int,
    time: np.ndarray,
    link: np.ndarray,
    cuts: np.ndarray,
    failure: np.ndarray,
    limits: np.ndarray,
    batch_limit: int,
    clock: np.ndarray,
    at: np.ndarray,
    worker_free: np.ndarray,
    late: np.ndarray,
    waiting: np.ndarray,
    ready: np.ndarray,
    how: np.ndarray,
    out: np.ndarray,
) -> None:
    """Serve all requests that become ready before `until`; call again to go on.

    Args:
        until: Seconds; jobs of the edge that are ready earlier are served.
        stop: Requests from this index on are not known yet.
        arrival: Seconds, increasing; shape (n,). `cut_of`: index of the cut of each; `draw`: uniform numbers for exits.
        switch_at: Seconds of each switch, increasing; `switch_s`: how long the edge is busy with it; the first
            `switches` of them are known.
        time: Start of each trace entry; `link`: its values, rows as above.
        cuts: Rows as above.
        failure: Start and end of each time in which the cloud is down; shape (2, f), in order, not overlapping.
        limits: Seconds until a request falls back (inf: never), seconds that a batch waits to fill, and time of each
            further member of a batch over the time of the first.
        batch_limit: Most requests in a batch; 1 for none.
        clock: State, as are `at`, `worker_free` (one a worker), `late` and `waiting` (indices of requests, room for n)
            and `ready` (when a request can start in the cloud, n).
        how: How each request was answered.
        out: Seconds by part, rows as above; shape (13, n).
    """
    timeout, batch_wait, batch_share = limits[0], limits[1], limits[2]
    entries, failures = len(time), failure.shape[1]
    while True:
        # The next job of the edge: a request whose time is up, or the next arrival; whichever is ready first.
        arriving = arrival[at[NEXT]] if at[NEXT] < stop else np.inf
        overdue = np.inf
        if at[LATE_HEAD] < at[LATE_TAIL]:
            request = late[at[LATE_HEAD]]
            overdue = out[TIMEOUT, request]
        now = min(arriving, overdue)
        over = not now < until
        if over:
            now = until
        if batch_limit > 1:
            _run_batches(
                now, time, link, cuts, cut_of, failure, batch_wait, batch_share, batch_limit,
                at, worker_free, waiting, ready, how, out,
            )  # fmt: skip
        if over:
            return
        is_local = overdue <= arriving
        if is_local:
            request = late[at[LATE_HEAD]]
            at[LATE_HEAD] += 1
            if batch_limit > 1:
                answered = how[request] == BY_CLOUD and out[DONE, request] <= overdue
                if answered:
                    out[TIMEOUT, request] = 0.0
                    continue
        else:
            request = at[NEXT]
            at[NEXT] += 1
        cut = cut_of[request]
        # Switches that were decided by now come first: the edge is busy with loading the other half.
        while at[SWITCH] < switches and switch_at[at[SWITCH]] <= now:
            clock[EDGE_FREE] = max(clock[EDGE_FREE], switch_at[at[SWITCH]]) + switch_s[at[SWITCH]]
            at[SWITCH] += 1
        start = max(now, clock[EDGE_FREE])
        entry = at[EDGE_ENTRY]
        while entry + 1 < entries and time[entry + 1] <= start:
            entry += 1
        at[EDGE_ENTRY] = entry
        slow = link[EDGE_FACTOR, entry]
        if is_local:
            end = start + cuts[REST_S, cut] * slow
            clock[EDGE_FREE] = end
            sent = arrival[request] + out[EDGE_WAIT, request] + out[EDGE, request] + out[ENCODE, request]
            for part in range(LINK_WAIT, TIMEOUT):
                out[part, request] = 0.0
            out[TIMEOUT, request] = now - sent
            out[LOCAL_WAIT, request] = start - now
            out[LOCAL, request] = end - start
            out[DONE, request] = end
            how[request] = FELL_BACK
            continue
        leaves = cuts[CROSSES, cut] > 0 and draw[request] >= cuts[EXIT_SHARE, cut]
        end = start + cuts[EDGE_S, cut] * slow
        out[EDGE_WAIT, request] = start - now
        out[EDGE, request] = end - start
        if not leaves:
            clock[EDGE_FREE] = end
            out[DONE, request] = end
            how[request] = ON_EDGE
            continue
        encoded = end + cuts[ENCODE_S, cut] * slow
        out[ENCODE, request] = encoded - end
        clock[EDGE_FREE] = encoded
        deadline = encoded + timeout
        # Over the uplink, entry by entry of the trace.
        begin = max(encoded, clock[UPLINK_FREE])
        arrived = np.inf
        if begin < deadline:
            entry = at[UPLINK_ENTRY]
            while entry + 1 < entries and time[entry + 1] <= begin:
                entry += 1
            at[UPLINK_ENTRY] = entry
            left, moment = cuts[UP_BITS, cut], begin
            while moment <= deadline:
                rate = link[UPLINK, entry]
                border = time[entry + 1] if entry + 1 < entries else np.inf
                if rate > 0.0 and moment + left / rate <= border:
                    arrived = moment + left / rate
                    break
                if border == np.inf:
                    break
                left -= rate * (border - moment)
                moment = border
                entry += 1
            if arrived > deadline:
                arrived = np.inf
            clock[UPLINK_FREE] = min(arrived, deadline)
        if arrived == np.inf:
            how[request] = LOST
            if timeout < np.inf:
                late[at[LATE_TAIL]] = request
                at[LATE_TAIL] += 1
                out[TIMEOUT, request] = deadline
            out[DONE, request] = np.inf
            continue
        round_trip = link[RTT, entry]
        out[LINK_WAIT, request] = begin - encoded
        out[SEND, request] = arrived - begin
        out[ROUND_TRIP, request] = round_trip
        came = arrived + 0.5 * round_trip
        while entry + 1 < entries and time[entry + 1] <= came:
            entry += 1
        can_start = max(came + link[QUEUE, entry], clock[CLOUD_READY])
        clock[CLOUD_READY] = can_start
        ready[request] = can_start
        out[CLOUD_WAIT, request] = can_start - came
        if batch_limit > 1:
            waiting[at[WAIT_TAIL]] = request
            at[WAIT_TAIL] += 1
            if timeout < np.inf:
                late[at[LATE_TAIL]] = request
                at[LATE_TAIL] += 1
                out[TIMEOUT, request] = deadline
            continue
        # The cloud, one request at a time: the worker that is free first.
        worker = 0
        for other in range(1, len(worker_free)):
            if worker_free[other] < worker_free[worker]:
                worker = other
        start = max(can_start, worker_free[worker])
        entry = at[CLOUD_ENTRY]
        while entry + 1 < entries and time[entry + 1] <= start:
            entry += 1
        at[CLOUD_ENTRY] = entry
        end = start + cuts[CLOUD_S, cut] * link[CLOUD_FACTOR, entry]
        while at[FAILURE] < failures and failure[1, at[FAILURE]] <= can_start:
            at[FAILURE] += 1
        answer = np.inf
        if at[FAILURE] < failures and failure[0, at[FAILURE]] < end:
            how[request] = LOST
            # Work that a failure ends occupies its worker until then; what still waited never starts.
            if start < failure[0, at[FAILURE]]:
                worker_free[worker] = failure[0, at[FAILURE]]
        else:
            worker_free[worker] = end
            answer = _back(end, entry, time, link, cuts[DOWN_BITS, cut]) + 0.5 * round_trip
            out[CLOUD_WAIT, request] += start - can_start
            out[CLOUD, request] = end - start
            out[RECEIVE, request] = answer - 0.5 * round_trip - end
            how[request] = BY_CLOUD if answer < np.inf else LOST
        out[DONE, request] = answer
        if answer > deadline:
            # TIMEOUT holds the moment until the request has fallen back.
            late[at[LATE_TAIL]] = request
            at[LATE_TAIL] += 1
            out[TIMEOUT, request] = deadline
            out[DONE, request] = np.inf


def _run_batches(
    now: float,
    time: np.ndarray,
    link: np.ndarray,
    cuts: np.ndarray,
    cut_of: np.ndarray,
    failure: np.ndarray,
    batch_wait: float,
    batch_share: float,
    batch_limit: int,
    at: np.ndarray,
    worker_free: np.ndarray,
    waiting: np.ndarray,
    ready: np.ndarray,
    how: np.ndarray,
    out: np.ndarray,
) -> None:
    """Start the batches that start by `now`; all requests that reach the cloud by then are waiting already."""
    entries, failures = len(time), failure.shape[1]
    while at[WAIT_HEAD] < at[WAIT_TAIL]:
        head = at[WAIT_HEAD]
        first = waiting[head]
        cut = cut_of[first]
        worker = 0
        for other in range(1, len(worker_free)):
            if worker_free[other] < worker_free[worker]:
                worker = other
        # A batch closes when it is full, when a request with another cut comes, or when its first has waited enough.
        closes = ready[first] + batch_wait
        for place in range(head + 1, min(head + batch_limit, at[WAIT_TAIL])):
            if cut_of[waiting[place]] != cut or place == head + batch_limit - 1:
                closes = min(closes, ready[waiting[place]])
                break
        start = max(closes, worker_free[worker])
        while at[FAILURE] < failures and failure[1, at[FAILURE]] <= ready[first]:
            at[FAILURE] += 1
        fails = failure[0, at[FAILURE]] if at[FAILURE] < failures else np.inf
        if start > now and fails > now:
            return
        if fails <= start:
            if how[first] != FELL_BACK:
                how[first] = LOST
                out[DONE, first] = np.inf
            at[WAIT_HEAD] += 1
            continue
        members = 1
        while members < batch_limit and head + members < at[WAIT_TAIL]:
            request = waiting[head + members]
            if cut_of[request] != cut or ready[request] > start:
                break
            members += 1
        entry = at[CLOUD_ENTRY]
        while entry + 1 < entries and time[entry + 1] <= start:
            entry += 1
        at[CLOUD_ENTRY] = entry
        end = start + cuts[CLOUD_S, cut] * link[CLOUD_FACTOR, entry] * (1.0 + batch_share * (members - 1))
        lost = fails < end
        worker_free[worker] = fails if lost else end
        back = np.inf if lost else _back(end, entry, time, link, cuts[DOWN_BITS, cut])
        for place in range(head, head + members):
            request = waiting[place]
            if how[request] == FELL_BACK:
                continue
            if lost:
                how[request] = LOST
                out[DONE, request] = np.inf
                continue
            out[CLOUD_WAIT, request] += start - ready[request]
            out[CLOUD, request] = end - start
            out[RECEIVE, request] = back - end
            out[DONE, request] = back + 0.5 * out[ROUND_TRIP, request]
            how[request] = BY_CLOUD if back < np.inf else LOST
        at[WAIT_HEAD] += members


def _back(moment: float, entry: int, time: np.ndarray, link: np.ndarray, left: float) -> float:
    """When an answer of `left` bits that leaves at `moment` is back; `entry` starts no later than `moment`."""
    entries = len(time)
    while entry + 1 < entries and time[entry + 1] <= moment:
        entry += 1
    while left > 0.0:
        rate = link[DOWNLINK, entry]
        border = time[entry + 1] if entry + 1 < entries else np.inf
        if rate > 0.0 and moment + left / rate <= border:
            return float(moment + left / rate)
        if border == np.inf:
            return np.inf
        left -= rate * (border - moment)
        moment = border
        entry += 1
    return moment
