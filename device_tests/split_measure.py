"""Measure real split execution: an edge half, a shaped loopback link and a cloud half, request by request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np

from device_tests.split_measurement import SplitMeasurement

__all__ = ["Arrays", "Half", "measure_split"]

Arrays: TypeAlias = Mapping[str, np.ndarray]
Half: TypeAlias = Callable[[Arrays], Arrays] | Path | None


def measure_split(
    head: Half,
    tail: Half,
    inputs: Arrays,
    *,
    uplink_bps: float,
    downlink_bps: float,
    rtt_s: float,
    edge_load: float = 0.0,
    cloud_load: float = 0.0,
    repeats: int = 5,
    warm_up: int = 2,
    threads: int = 1,
    timeout_s: float = 300.0,
) -> SplitMeasurement:
    """Run requests through both halves over a link with these rates and this delay.

    Args:
        head: The edge half: an artifact folder or model file (runs in a process of its own), or a function from arrays
            by name to arrays by name (runs in a thread of this process). None: everything runs in the cloud.
        tail: The cloud half, alike. None: everything runs on the edge and nothing crosses.
        inputs: One request, arrays by the model's input names, batch dimension included. Those that the head does not
            take and the tail does are sent with the head's outputs.
        uplink_bps: Bits per second from edge to cloud.
        downlink_bps: Bits per second back.
        rtt_s: Round-trip time; half of it is paid in each direction.
        edge_load: Share of the edge's CPU that a load of ours takes meanwhile, 0 to 1. Edge and cloud have different
            cores where the machine has two, so that a load on one leaves the other alone.
        cloud_load: The same in the cloud.
        repeats: Requests that count.
        warm_up: Requests before them.
        threads: Of each half's runtime.
        timeout_s: For one request.

    Raises:
        BadInput: An option is out of range, or the tail takes a tensor that neither the head nor the inputs have.
        DeviceError: A half's process died or gave no answer in time.
    """
    raise NotImplementedError
