"""Passes stay where they lower the error on held samples, and what was measured is written down."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from converters.contracts import Captured, LowerRequest
from converters.passes.settle import settle_passes, with_rules
from edge_deploy.core.errors import BadInput
from edge_deploy.core.passes import (
    BIASES,
    DEFAULT,
    EQUALISE,
    FIRST_LAST,
    FOLD,
    PASSES,
    ROUNDING,
    PassRecord,
    chosen_passes,
)
from edge_deploy.core.quant_spec import spec_for_recipe
from edge_deploy.core.tensor import TensorInfo

# What each pass adds to the error of a net that exists only here.
EFFECTS = {FOLD: 0.5, EQUALISE: -0.3, ROUNDING: 0.2, BIASES: -0.4, FIRST_LAST: -0.1}


def request(folder: Path, samples: int, **changes) -> LowerRequest:
    info = TensorInfo(name="x", shape=(1, 4), dtype="float32")
    captured = Captured(
        name="net", framework="keras", kind="cnn", folder=folder, inputs=(info,), outputs=(replace(info, name="y"),)
    )
    values = np.random.default_rng(0).normal(size=(samples, 4)).astype(np.float32)
    np.savez(folder / "calibration.npz", x=values)
    np.save(folder / "labels.npy", values.argmax(axis=1).astype(float))
    spec = spec_for_recipe(changes.pop("recipe", "int8"), **changes)
    return LowerRequest(
        captured=captured,
        spec=spec,
        folder=folder,
        calibration=folder / "calibration.npz",
        labels=folder / "labels.npy",
    )


class Trials:
    """Answers with errors that are the sum of the effects; remembers which samples it was given."""

    def __init__(self) -> None:
        self.fitted: list[int] = []
        self.seen: set[bytes] = set()

    def __call__(self, asked: LowerRequest, held: Path):
        with np.load(asked.calibration) as archive:
            fitted = archive["x"]
        with np.load(held) as archive:
            given = archive["x"]
        self.fitted.append(len(fitted))
        self.seen |= {row.tobytes() for row in fitted} & {row.tobytes() for row in given}
        noise = 1.0 + sum(EFFECTS[name] for name in asked.spec.passes)
        told = tuple(PassRecord(name=name, applied=True, detail="did it") for name in (FOLD, EQUALISE))
        return {"y": given}, {"y": given + 0.1 * noise * np.sign(given)}, told


def test_passes_that_add_to_the_error_are_left_out_and_recorded(tmp_path):
    trials = Trials()
    settled, records = settle_passes(request(tmp_path, 60), trials)
    assert settled.spec.passes == (FOLD, EQUALISE, BIASES)
    by_name = {record.name: record for record in records}
    assert tuple(by_name) == DEFAULT
    assert not by_name[ROUNDING].applied
    assert by_name[ROUNDING].after_snr_db < by_name[ROUNDING].before_snr_db
    assert "does not lower" in by_name[ROUNDING].detail
    assert by_name[EQUALISE].after_snr_db > by_name[EQUALISE].before_snr_db
    assert by_name[EQUALISE].detail == "did it"
    assert all(record.samples == 20 and record.before_accuracy is not None for record in records)
    assert not trials.seen and set(trials.fitted) == {40}


def test_folding_stays_although_it_is_measured_to_cost(tmp_path):
    _, records = settle_passes(request(tmp_path, 60), Trials())
    assert records[0].name == FOLD and records[0].applied
    assert records[0].after_snr_db < records[0].before_snr_db


def test_few_samples_measure_nothing_and_the_record_says_so(tmp_path):
    def never(asked, held):
        raise AssertionError("nothing can be measured")

    settled, records = settle_passes(request(tmp_path, 8), never)
    assert settled.spec.passes == DEFAULT
    assert all(record.applied and "too few" in record.detail and not record.samples for record in records)


def test_precisions_without_calibrated_activations_have_no_passes(tmp_path):
    assert settle_passes(request(tmp_path, 60, recipe="int8-weight"), Trials())[1] == ()


def test_first_and_last_layer_are_a_matter_of_four_bits_alone(tmp_path):
    passes = chosen_passes(with_passes=[FIRST_LAST])
    assert FIRST_LAST in passes
    eight, records = settle_passes(request(tmp_path, 60, passes=passes), Trials())
    assert FIRST_LAST not in [record.name for record in records] and not with_rules(eight).spec.rules
    four, records = settle_passes(request(tmp_path, 60, recipe="int4", passes=passes), Trials())
    assert FIRST_LAST in four.spec.passes
    assert [(rule.position, rule.weight_bits) for rule in with_rules(four).spec.rules] == [("first", 8), ("last", 8)]


def test_names_of_passes_are_checked():
    assert chosen_passes(without_passes=["all"], with_passes=[BIASES]) == (BIASES,)
    assert chosen_passes(without_passes=[EQUALISE]) == tuple(name for name in DEFAULT if name != EQUALISE)
    with pytest.raises(BadInput, match="--without-pass adaround: must be one of fold-batch-norms"):
        chosen_passes(without_passes=["adaround"])
    with pytest.raises(BadInput, match="asked for and left out"):
        chosen_passes(with_passes=[BIASES], without_passes=[BIASES])
    assert set(DEFAULT) < set(PASSES)
