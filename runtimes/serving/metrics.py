"""What a server counts, for Prometheus: requests by outcome, seconds, batches, queues, models in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_deploy.core.require import require

__all__ = ["CONTENT_TYPE", "Metrics", "collect_workers"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Metrics:
    """Counters of one server process.

    With several processes, the environment variable PROMETHEUS_MULTIPROC_DIR names the folder that they share; it
    must be set before the first of these is made.
    """

    def __init__(self) -> None:
        client = require("prometheus_client", extra="serve")
        self._client = client
        self._registry = client.CollectorRegistry()
        on = {"registry": self._registry}
        self.requests = client.Counter(
            "edge_deploy_requests", "Requests by model and outcome (a gRPC status).", ("model", "status"), **on
        )
        self.seconds = client.Histogram(
            "edge_deploy_request_seconds",
            "From the last byte of a request to its answer.",
            ("model",),
            buckets=SECONDS,
            **on,
        )
        self.waited = client.Histogram(
            "edge_deploy_queue_seconds",
            "How long the first request of a batch waited.",
            ("model",),
            buckets=SECONDS,
            **on,
        )
        self.ran = client.Histogram(
            "edge_deploy_inference_seconds", "Seconds of one inference.", ("model",), buckets=SECONDS, **on
        )
        self.rows = client.Histogram("edge_deploy_batch_rows", "Rows of one inference.", ("model",), buckets=ROWS, **on)
        summed = {**on, "multiprocess_mode": "livesum"}
        self.held = client.Gauge("edge_deploy_requests_held", "Requests in the process now.", **summed)
        self.models = client.Gauge("edge_deploy_models_loaded", "Models in memory.", **summed)
        self.model_bytes = client.Gauge("edge_deploy_models_bytes", "Bytes that loaded models count.", **summed)

    def inference(self, model: str) -> Callable[[int, int, float, float], None]:
        """What a queue tells of each inference of this model."""
        waited, ran, rows = self.waited.labels(model), self.ran.labels(model), self.rows.labels(model)

        def observe(requests: int, count: int, waited_s: float, ran_s: float) -> None:
            waited.observe(waited_s)
            ran.observe(ran_s)
            rows.observe(count)

        return observe

    def loaded(self, models: int, count: int) -> None:
        """What is in memory now."""
        self.models.set(models)
        self.model_bytes.set(count)

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        text: bytes = self._client.generate_latest(self._registry)
        return text


def collect_workers(folder: Path) -> bytes:
    """The sum over the processes that share a folder of counters."""
    client: Any = require("prometheus_client", extra="serve")
    multiprocess: Any = require("prometheus_client.multiprocess", extra="serve")
    registry = client.CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, path=str(folder))
    text: bytes = client.generate_latest(registry)
    return text
