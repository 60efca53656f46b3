"""The same requests in the simulator and for real: two processes, a shaped link between them, and the difference."""
