"""Each trap that the README names has a guard and a test that exist."""

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in (HERE / "README.md").read_text().partition("## Known traps")[2].splitlines()
    if line.startswith("| ") and not line.startswith("| trap")
]


def test_the_table_holds_the_known_traps():
    assert len(ROWS) >= 16 and all(len(row) == 3 for row in ROWS)


@pytest.mark.parametrize(("trap", "guard", "test"), ROWS)
def test_a_trap_has_a_guard_and_a_test(trap, guard, test):
    guards = re.findall(r"`([\w./]+\.py)`", guard)
    tests = re.findall(r"`([\w./]+_test\.py)::(test_\w+)`", test)
    assert tests and (guards or "never written" in guard), trap
    for path in guards:
        assert (HERE / path).is_file(), path
    for path, name in tests:
        assert f"def {name}(" in (HERE / path).read_text(), f"{path}::{name}"
