"""A subject with the worker that runs it, and how the worker is asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from device_tests.benchmark_subject import Subject
from device_tests.contracts import Channel
from edge_deploy.core.errors import BadInput, EdgeDeployError, error_from_json, error_to_json

__all__ = ["LOAD_TIMEOUT_S", "RUN_TIMEOUT_S", "Turn", "ask", "ask_if_known"]

LOAD_TIMEOUT_S = 600.0
RUN_TIMEOUT_S = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One subject with the worker that runs it, and the path that it has on the device."""

    subject: Subject
    channel: Channel
    path: str


def ask(turn: Turn, request: Mapping[str, Any], *, timeout_s: float) -> Any:
    """The worker's answer; its errors name the user's file and not the copy on the device."""
    try:
        return turn.channel.ask(request, timeout_s=timeout_s)
    except EdgeDeployError as error:
        here, there = str(turn.subject.path), turn.path
        told = json.loads(json.dumps(error_to_json(error)).replace(json.dumps(there)[1:-1], json.dumps(here)[1:-1]))
        told["problems"] = [text if here in text else f"{here}: {text}" for text in told["problems"]]
        raise error_from_json(told) from error


def ask_if_known(turn: Turn, request: Mapping[str, Any], *, timeout_s: float) -> Any:
    """The worker's answer; None where the device's end does not know this request."""
    try:
        return ask(turn, request, timeout_s=timeout_s)
    except BadInput as error:
        if any(f"worker request {request['do']!r}" in problem for problem in error.problems):
            return None
        raise
