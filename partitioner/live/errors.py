"""How a request can end without an answer, beside a cloud that is gone and no model on the edge."""

from __future__ import annotations

from edge_deploy.core.errors import EdgeDeployError

__all__ = ["Cancelled", "DeadlineMissed"]


class DeadlineMissed(EdgeDeployError):
    """The answer would have come, or came, after the request's deadline."""


class Cancelled(EdgeDeployError):
    """The caller wanted no answer any more."""
