"""What every artifact must do on a device: load, answer in its shapes, compute what it computes here, fit, be good.

Started by the plugin; the file's name keeps it out of ordinary test runs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from device_tests.input_sets import random_input_sets
from device_tests.reference import differences, reference_answers
from device_tests.suite.opened import Opened
from device_tests.tasks.data import find_task_folder, open_task_data
from device_tests.tasks.evaluate import evaluate
from device_tests.tasks.models import models_for
from device_tests.tasks.run import EMULATED_ITEMS
from device_tests.tasks.task import find_tasks
from edge_deploy.core.units import format_bytes, parse_bytes

__all__: list[str] = []

SAMPLES = 8
# Kernels of other processors round the same integers differently by one step at most; more is another function.
MOST_STEPS = 1
# Of the largest value. Behind a dequantization one step of 8 bits is one part in 127 of it.
FLOAT_TOLERANCE, QUANTIZED_TOLERANCE = 1e-3, 1 / 100


def _samples(opened: Opened) -> dict[str, np.ndarray]:
    sets = random_input_sets(opened.model.signature, seed=0)
    chosen = [sets[number % len(sets)] for number in range(SAMPLES)]
    return {name: np.stack([each[name] for each in chosen]) for name in chosen[0]}


def test_it_loads(on_device: Opened) -> None:
    """The device's runtime takes the file."""
    assert on_device.loaded["kernels"]


def test_outputs_have_the_shapes_and_types_of_the_signature(on_device: Opened) -> None:
    """Names, shapes and types are those that the artifact states, and values are finite."""
    outputs, _ = on_device.infer(_samples(on_device))
    for info in on_device.model.signature.outputs:
        assert info.name in outputs, f"outputs are {', '.join(outputs)}"
        found = outputs[info.name]
        wanted = tuple(size if size >= 0 else have for size, have in zip(info.shape, found.shape[1:], strict=True))
        assert (found.shape, str(found.dtype)) == ((SAMPLES, *wanted), info.dtype)
        assert np.isfinite(found.astype(np.float64)).all()


def test_it_computes_what_it_computes_on_this_machine(on_device: Opened) -> None:
    """Integers within one step, floats within a part of the largest value; see `device_tests.reference`."""
    given = _samples(on_device)
    outputs, _ = on_device.infer(given)
    wanted = reference_answers(on_device.subject, given, signature=on_device.model.signature.name).outputs
    scale = {name: float(np.abs(values.astype(np.float64)).max(initial=0.0)) for name, values in wanted.items()}
    for found in differences(outputs, wanted):
        whole = wanted[found.output].dtype.kind in "iub"
        share = FLOAT_TOLERANCE if on_device.model.precision in ("", "float32") else QUANTIZED_TOLERANCE
        allowed = MOST_STEPS if whole else share * max(scale[found.output], 1e-6)
        assert found.largest <= allowed, f"{found}: allowed {allowed:g}"


def test_its_memory_stays_within_the_budget(on_device: Opened, pytestconfig: pytest.Config) -> None:
    """Peak memory of the process, or RAM of the firmware, against --max-memory or what the device has."""
    text = pytestconfig.getoption("edge_deploy__max_memory", default=None)
    budget = parse_bytes(text, where="--max-memory") if text else on_device.device.ram_bytes
    _, told = on_device.infer(_samples(on_device))
    used = told.get("ram_bytes") or on_device.state()["peak_rss_bytes"]
    if not used:
        pytest.skip("the device does not tell its memory")
    assert used <= budget, f"{format_bytes(used)} used, the budget is {format_bytes(budget)}"


def test_its_quality_reaches_the_floor_of_its_task(on_device: Opened, pytestconfig: pytest.Config) -> None:
    """Of every task that comes along and that the artifact fits, on the data below --task-data."""
    given = pytestconfig.getoption("edge_deploy__task_data", default=None)
    if not given:
        pytest.skip("no --task-data")
    emulated = on_device.device.kind == "emulated"
    limit = pytestconfig.getoption("edge_deploy__items", default=None) or (EMULATED_ITEMS if emulated else None)
    seen = []
    for task in find_tasks("all"):
        folder = find_task_folder(task, Path(given))
        if folder is None:
            continue
        samples = open_task_data(task, folder, limit=limit)
        arrays = tuple(samples.rows(0)) if task.data.arrays else ()
        if not models_for(task, [on_device.model], arrays=arrays):
            continue
        found = evaluate(task, samples, on_device.model, on_device.turn, on_device.transport, folder="task").quality
        seen.append(found)
        # A subset may miss the floor by chance: then the interval must exclude it.
        missed = found.verdict == "missed" and (found.resolved or found.items == samples.offered)
        assert not missed, (
            f"{task.title}: {found.metric} {found.value:.4f} (95 % {found.low:.4f} to {found.high:.4f}) on "
            f"{found.items} items: the floor is {found.floor:g}"
        )
    if not seen:
        pytest.skip(f"{given} holds no data of a task that this artifact fits")
