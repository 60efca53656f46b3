from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_deploy.core.errors import BadInput
from runtimes.formats.by_hand_test import ByHand, dense, look_up, offset_buffers, small_cnn
from runtimes.formats.tflite import read_facts, warnings
from runtimes.formats.tflite_file import read_tflite
from runtimes.formats.tflite_inline import inline_buffers
from runtimes.session import open_session


@pytest.mark.parametrize("make", [small_cnn, look_up, lambda: dense((1, 3))], ids=["cnn", "look-up", "signatures"])
def test_inlining_changes_where_constants_lie_and_nothing_else(make: Callable[[], ByHand], tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside.tflite", tmp_path / "inside.tflite"
    outside.write_bytes(offset_buffers(make().bytes()))
    assert warnings(outside)
    inline_buffers(outside, inside)
    assert not warnings(inside)
    assert all(buffer.offset % 16 == 0 for buffer in read_tflite(inside).buffers if buffer.bytes)
    assert read_facts(inside) == read_facts(outside)
    rng = np.random.default_rng(3)
    before, after = open_session(outside, trusted=True), open_session(inside, trusted=True)
    assert before.signature == after.signature
    inputs = {i.name: rng.integers(0, 90, i.shape).astype(i.dtype) for i in before.signature.inputs}
    for name, values in before.run(inputs).items():
        np.testing.assert_array_equal(after.run(inputs)[name], values)


def test_a_file_may_be_inlined_in_place(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(offset_buffers(small_cnn().bytes()))
    inline_buffers(path, path)
    assert not warnings(path)
    assert [file.name for file in tmp_path.iterdir()] == ["m.tflite"]


def test_a_file_that_is_inline_already_is_copied_byte_by_byte(tmp_path: Path) -> None:
    path = small_cnn().write(tmp_path / "m.tflite")
    inline_buffers(path, tmp_path / "out.tflite")
    assert (tmp_path / "out.tflite").read_bytes() == path.read_bytes()


def test_a_damaged_file_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(offset_buffers(small_cnn().bytes())[:-50])
    with pytest.raises(BadInput, match="must lie within the file"):
        inline_buffers(path, tmp_path / "out.tflite")
    assert not (tmp_path / "out.tflite").exists()
