"""The on-device tests: they run on any artifact, started by the pytest plugin."""
