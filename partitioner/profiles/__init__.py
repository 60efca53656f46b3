"""Profiles made from measurements: of the runtime's profiler, of timed prefixes, and under load."""
