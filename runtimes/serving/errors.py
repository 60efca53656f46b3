"""What can go wrong between an edge and the server that it calls: each situation a class, so that a caller can act."""

from __future__ import annotations

from edge_deploy.core.errors import DeviceError

__all__ = ["CloudError", "CloudGarbled", "CloudGone", "CloudOverloaded", "CloudRefused", "CloudTimedOut"]


class CloudError(DeviceError):
    """A request that a server did not answer with the outputs of the model."""


class CloudGone(CloudError):
    """No connection, a connection that broke, or a server that is about to stop: another attempt may succeed."""


class CloudTimedOut(CloudError):
    """No answer within the deadline; the server may have computed it or not."""


class CloudOverloaded(CloudError):
    """The server has no room for one more request at the moment: wait before the next one."""


class CloudRefused(CloudError):
    """The server will never answer this request: unknown model or version, wrong shapes, no permission."""


class CloudGarbled(CloudError):
    """The server answered, but not with what the model gives: it failed inside, or sent other tensors."""
