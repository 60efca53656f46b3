"""Every connection is an open file, and many systems allow a process 1,024 unless it asks for more."""

from __future__ import annotations

import sys

__all__ = ["allow_open_files"]

BESIDE_CONNECTIONS = 256


def allow_open_files(connections: int) -> int:
    """Ask for as many open files as so many connections need; returns how many connections there is room for."""
    if sys.platform == "win32":  # knows no such limit
        return connections
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + BESIDE_CONNECTIONS
    unlimited = resource.RLIM_INFINITY
    if soft != unlimited and soft < wanted:
        soft = wanted if hard == unlimited else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return connections if soft == unlimited else min(connections, soft - BESIDE_CONNECTIONS)
