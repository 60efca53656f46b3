"""The device lab: devices, transports, the benchmark protocol."""
