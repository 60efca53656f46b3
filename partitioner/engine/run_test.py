import collections
import dataclasses
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from edge_deploy.core.errors import BadInput, DeviceError
from partitioner.engine.run import run_tasks
from partitioner.engine.store import has_result, load_results, partition_path
from partitioner.engine.task import carry_out, make_task

SQUARES = "partitioner.engine.trial:squares"


def tasks_of(count, **arguments):
    return [make_task(SQUARES, {"number": number, **arguments}) for number in range(count)]


def executions(log):
    return collections.Counter(log.read_text().split()) if log.exists() else collections.Counter()


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, memory_limit=0
    ) as found:
        yield found


def test_a_task_s_key_depends_on_its_content_alone():
    one = make_task(SQUARES, {"number": 3, "log": ""})
    assert one.key == make_task(SQUARES, {"log": "", "number": 3}).key
    others = [
        make_task(SQUARES, {"number": 4, "log": ""}),
        make_task(SQUARES, {"number": 3, "log": ""}, revision=2),
        make_task("partitioner.engine.trial:cubes", {"number": 3, "log": ""}),
    ]
    assert len({one.key, *(task.key for task in others)}) == 4
    array = make_task(SQUARES, {"number": np.arange(3)})
    assert array.key == make_task(SQUARES, {"number": [0, 1, 2]}).key


@pytest.mark.parametrize("arguments", [{"number": object()}, {"number": {1, 2}}])
def test_arguments_that_are_no_plain_values_are_refused(arguments):
    with pytest.raises(BadInput, match="no plain values"):
        make_task(SQUARES, arguments)


def test_functions_that_are_not_there_are_refused():
    with pytest.raises(BadInput, match="must be package"):
        make_task("squares", {})
    with pytest.raises(BadInput, match="no such function"):
        carry_out(make_task("partitioner.engine.trial:cubes", {}))


@pytest.mark.parametrize("jobs", [1, 2])
def test_results_come_back_in_the_order_of_the_tasks_and_nothing_is_repeated(tmp_path, jobs):
    log = tmp_path / "log"
    tasks = tasks_of(4, log=str(log))
    first = run_tasks([*tasks, tasks[0]], tmp_path / "out", jobs=jobs)
    again = run_tasks(tasks, tmp_path / "out", jobs=jobs)
    assert (first.executed, first.found) == (4, 0)
    assert (again.executed, again.found) == (0, 4)
    assert set(executions(log).values()) == {1}
    loaded = load_results(tmp_path / "out", tasks)
    for number, table in enumerate(loaded):
        np.testing.assert_array_equal(table["square"], np.arange(number + 1) ** 2)


def test_a_wider_sweep_computes_only_what_is_new(tmp_path):
    run_tasks(tasks_of(3), tmp_path)
    ran = run_tasks(tasks_of(5), tmp_path)
    assert (ran.executed, ran.found) == (2, 3)


def test_a_killed_run_resumes_and_repeats_nothing_that_was_finished(tmp_path):
    log, out = tmp_path / "log", tmp_path / "out"
    code = (
        "from pathlib import Path\n"
        "from partitioner.engine.run import run_tasks\n"
        "from partitioner.engine.task import make_task\n"
        f"tasks = [make_task({SQUARES!r}, dict(number=n, log={str(log)!r}, seconds=0.1)) for n in range(40)]\n"
        f"run_tasks(tasks, Path({str(out)!r}))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    while len(list(out.glob("*.parquet"))) < 5 and time.monotonic() < deadline:
        os.sched_yield()
    process.send_signal(signal.SIGKILL)
    process.wait()
    tasks = tasks_of(40, log=str(log), seconds=0.1)
    finished = [task for task in tasks if has_result(out, task)]
    assert 5 <= len(finished) < 40
    before = executions(log)
    ran = run_tasks(tasks, out, jobs=2)
    assert (ran.executed, ran.found) == (40 - len(finished), len(finished))
    after = executions(log)
    for number, task in enumerate(tasks):
        # What had been cut off in its middle runs again; what was finished does not.
        assert after[str(number)] == (1 if task in finished else before[str(number)] + 1)
    assert len(load_results(out, tasks)) == 40


def test_a_half_written_result_does_not_count(tmp_path):
    (task,) = tasks_of(1)
    path = partition_path(tmp_path, task)
    path.with_name(f".{path.name}.77.partial").write_bytes(b"PAR1")
    assert run_tasks([task], tmp_path).executed == 1


def test_a_damaged_result_is_named(tmp_path):
    (task,) = tasks_of(1)
    partition_path(tmp_path, task).write_bytes(b"not parquet")
    with pytest.raises(BadInput, match=r"delete it and run again"):
        load_results(tmp_path, [task])


def test_the_error_of_a_task_comes_through_and_what_was_done_is_kept(tmp_path):
    bad = make_task(SQUARES, {"number": -1})
    for jobs in (1, 2):
        with pytest.raises(BadInput, match="must not be negative"):
            run_tasks([*tasks_of(2), bad], tmp_path, jobs=jobs)
    assert all(has_result(tmp_path, task) for task in tasks_of(2))


def test_the_same_tasks_give_the_same_files_on_a_dask_cluster(tmp_path, cluster):
    log = tmp_path / "log"
    tasks = tasks_of(12, log=str(log))
    done = []
    ran = run_tasks(
        tasks,
        tmp_path / "dask",
        engine="dask",
        scheduler=cluster.scheduler_address,
        progress=lambda count, total: done.append((count, total)),
    )
    assert ran.executed == 12
    assert done[-1] == (12, 12)
    assert set(executions(log).values()) == {1}
    again = run_tasks(tasks, tmp_path / "dask", engine="dask", scheduler=cluster.scheduler_address)
    assert (again.executed, again.found) == (0, 12)
    run_tasks(tasks, tmp_path / "local")
    for ours, theirs in zip(
        load_results(tmp_path / "local", tasks), load_results(tmp_path / "dask", tasks), strict=True
    ):
        np.testing.assert_array_equal(ours["square"], theirs["square"])


def test_a_sweep_begun_on_the_cluster_is_finished_here(tmp_path, cluster):
    tasks = tasks_of(8)
    run_tasks(tasks[:5], tmp_path, engine="dask", scheduler=cluster.scheduler_address)
    ran = run_tasks(tasks, tmp_path)
    assert (ran.executed, ran.found) == (3, 5)


def test_errors_of_tasks_come_through_from_the_cluster(tmp_path, cluster):
    bad = make_task(SQUARES, {"number": -1})
    with pytest.raises(BadInput, match="must not be negative"):
        run_tasks([bad], tmp_path, engine="dask", scheduler=cluster.scheduler_address)


def test_options_that_do_not_fit_are_refused(tmp_path):
    tasks = tasks_of(1)
    with pytest.raises(BadInput, match="--scheduler ADDRESS"):
        run_tasks(tasks, tmp_path, engine="dask")
    with pytest.raises(BadInput, match="add --engine dask"):
        run_tasks(tasks, tmp_path, scheduler="tcp://127.0.0.1:1")
    with pytest.raises(BadInput, match="did you mean dask"):
        run_tasks(tasks, tmp_path, engine="dsk")
    with pytest.raises(BadInput, match="at least 1"):
        run_tasks(tasks, tmp_path, jobs=0)


def test_a_cluster_that_does_not_answer_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("partitioner.engine.engines.dask.CONNECT_TIMEOUT_S", 1)
    for address in ("tcp://127.0.0.1:1", "nonsense"):
        with pytest.raises(DeviceError, match="cannot be reached"):
            run_tasks(tasks_of(1), tmp_path, engine="dask", scheduler=address)


def test_tasks_are_values():
    task = make_task(SQUARES, {"number": 1})
    assert task == dataclasses.replace(task)
    assert hash(task) == hash(make_task(SQUARES, {"number": 1}))
