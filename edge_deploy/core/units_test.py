import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_deploy.core.errors import BadInput
from edge_deploy.core.units import format_bytes, format_seconds, parse_bits_per_second, parse_bytes, parse_seconds


@pytest.mark.parametrize(
    ("text", "count"),
    [("512 KiB", 524_288), ("2GB", 2_000_000_000), ("4096", 4096), ("1.5 MiB", 1_572_864), (7, 7), ("12 b", 12)],
)
def test_amounts_of_memory_are_read_as_people_write_them(text, count):
    assert parse_bytes(text, where="ram") == count


def test_rates_and_durations_are_read_with_their_units():
    assert parse_bits_per_second("20 Mbps", where="uplink") == 20e6
    assert (
        parse_bits_per_second("20Mbit", where="uplink") == parse_bits_per_second("0.02 Gbit/s", where="uplink") == 20e6
    )
    assert parse_seconds("40 ms", where="rtt") == pytest.approx(0.04)
    assert parse_seconds("5us", where="rtt") == pytest.approx(5e-6)


@pytest.mark.parametrize("text", ["", "much", "12 parsecs", "-3 kB", "1 2 kB", "nan MB"])
def test_what_is_no_amount_is_refused_with_its_place_and_an_example(text):
    with pytest.raises(BadInput, match=r"board.toml: ram = .*512 KiB"):
        parse_bytes(text, where="board.toml: ram")


def test_a_duration_without_a_unit_is_refused():
    with pytest.raises(BadInput, match="with its unit"):
        parse_seconds("40", where="rtt")


def test_amounts_are_written_with_three_significant_digits():
    assert [format_bytes(n) for n in (0, 12, 8_911_234, 999_900, 1_234_567_890)] == [
        "0 B", "12 B", "8.91 MB", "1.00 MB", "1.23 GB",
    ]  # fmt: skip
    assert [format_seconds(s) for s in (0, 5.4e-6, 0.01234, 2, 120)] == [
        "0 ns",
        "5.40 µs",
        "12.3 ms",
        "2.00 s",
        "120 s",
    ]


@given(st.integers(min_value=0, max_value=10**13))
def test_what_is_written_reads_back_within_its_digits(count):
    assert math.isclose(parse_bytes(format_bytes(count), where="x"), count, rel_tol=0.006)
