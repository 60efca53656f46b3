"""One file per trace format, each with `matches(text)` and `read(text, options)`; see `partitioner.traces.recorded`."""
