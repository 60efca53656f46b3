"""Which figures of the live split are met by the rows of `make bench-live`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["figures"]

ECHO_US = 300.0
EDGE_SHARE, EDGE_US = 0.05, 5.0
MEDIAN_ERROR = 0.10
REQUESTS, FAULT_S, TIMES = 10_000, 300, 20
CLIENTS, CLIENTS_S = 1000, 60
MESSAGES = 10_000
# Allocators keep what they have; a leak of each message would be far more.
GROWTH = 0.10

Row = tuple[str, str, str, str]


def figures(rows: Mapping[str, Any]) -> list[Row]:
    """Figure, wanted, found, and "met", "NOT MET" or "not measured" for every figure of every part.

    Args:
        rows: By part what its function gave; parts may be missing.
    """
    judges = {
        "simulator": _simulator,
        "overhead": _overhead,
        "faults": _faults,
        "clients": _clients,
        "hostile": _hostile,
    }
    found: list[Row] = []
    for part, judge in judges.items():
        if part in rows:
            found += judge(rows[part])
        else:
            found.append((part, "", "", "not measured"))
    return found


def _simulator(row: Mapping[str, Any]) -> list[Row]:
    return [
        (
            f"live median beside the simulator's: {name}",
            f"within {MEDIAN_ERROR:.0%}",
            f"{each['live_median_ms']:g} ms live, {each['simulated_median_ms']:g} simulated, "
            f"{each['median_error']:+.1%}; p95 {each['p95_error']:+.1%}",
            _met(abs(each["median_error"]) <= MEDIAN_ERROR),
        )
        for name, each in row["conditions"].items()
    ]


def _overhead(row: Mapping[str, Any]) -> list[Row]:
    found = []
    for name, each in row.items():
        added = each["added_us"]
        interval = f"({each['low_us']:.1f} to {each['high_us']:.1f})"
        if "bare_us" in each:
            allowed = max(EDGE_SHARE * each["bare_us"], EDGE_US)
            wanted = f"at most {allowed:.1f} us more"
        else:
            allowed, wanted = ECHO_US, f"at most {ECHO_US:g} us more"
        said = f"{added:+.1f} us {interval}"
        if "beside_streamed_us" in each:
            said += f"; beside an echo over a stream {each['beside_streamed_us']:+.1f} us"
        found.append((f"live loop: {name}", wanted, said, _met(added <= allowed)))
    return found


def _faults(row: Mapping[str, Any]) -> list[Row]:
    wrong, answers, asked = row["wrong"], row["answers"], row["asked"]
    once = answers == asked == row["recorded"] and not row["twice"] and not row["never"]
    whole = once and not wrong and not row["errors"]
    enough = asked >= REQUESTS and row["seconds"] >= FAULT_S
    kills, drops = row.get("kills", 0), row.get("drops", 0)
    said = f"{answers} answers of {asked} in {row['seconds']} s, {wrong} wrong, {row['twice']} twice"
    said += (
        f"; {row['switches']} switches, {kills} kills, {drops} drops; p50 {row['p50_ms']} ms, p99 {row['p99_ms']} ms"
    )
    return [
        (
            "requests through faults",
            f"{REQUESTS} answers in at least {FAULT_S} s, {TIMES} kills, {TIMES} drops, none wrong, none twice",
            said,
            _met(whole and enough and kills >= TIMES and drops >= TIMES),
        )
    ]


def _clients(row: Mapping[str, Any]) -> list[Row]:
    enough = row["clients"] >= CLIENTS and row["seconds"] >= CLIENTS_S
    return [
        (
            "clients at once",
            f"{CLIENTS} for {CLIENTS_S} s, no error; p99 stated",
            f"{row['clients']} for {row['seconds']:g} s: {row['right_answers']} right answers, errors "
            f"{row['errors'] or 'none'}, p50 {row['median_ms']} ms, p99 {row['p99_ms']} ms",
            _met(enough and not row["errors"] and row["right_answers"] > 0),
        )
    ]


def _hostile(row: Mapping[str, Any]) -> list[Row]:
    memory = row["resident_mb"]
    half = memory[len(memory) // 2]
    flat = max(memory[len(memory) // 2 :]) <= half * (1 + GROWTH)
    served = not row["honest_failures"] and row["honest_answers"] > 0
    refused = row["wrong_digests_refused"] == row["wrong_digests"]
    alive = row["processes"] == "the same throughout"
    return [
        (
            "hostile messages",
            f"{MESSAGES}, no crash, no hang, others served, memory flat",
            f"{row['messages']} messages, {row['processes']}; honest client: {row['honest_answers']} answers, "
            f"{len(row['honest_failures'])} failures, p99 {row['honest_p99_ms']} ms; wrong digests refused "
            f"{row['wrong_digests_refused']} of {row['wrong_digests']}; resident {memory[0]} to {memory[-1]} MB",
            _met(row["messages"] >= MESSAGES and alive and served and refused and flat),
        )
    ]


def _met(yes: bool) -> str:
    return "met" if yes else "NOT MET"
