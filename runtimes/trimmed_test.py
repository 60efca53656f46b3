"""The trimmed mean forgets interruptions and keeps fractions."""

from __future__ import annotations

import pytest

from runtimes.trimmed import trimmed_mean


def test_an_interrupted_run_does_not_count_and_whole_numbers_give_fractions() -> None:
    assert trimmed_mean([3, 3, 4, 4, 3, 4, 90000, 0]) == pytest.approx(3.5)
    assert trimmed_mean([7.0]) == 7.0
