"""One file per generator, each with `FIELDS` and `series(time_s, rng, values)`; see `partitioner.traces.generate`."""
