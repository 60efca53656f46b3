"""Environment that every process of ours runs under, set before a library starts its threads."""

__all__ = ["QUIET_THREADS"]

# Threads that spin while they wait make small networks tens of times slower as soon as the machine has other work.
QUIET_THREADS = {"OMP_WAIT_POLICY": "PASSIVE"}
