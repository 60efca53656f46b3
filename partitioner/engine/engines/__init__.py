"""One file per engine, each with `execute(tasks, *, scheduler, jobs)`; see `partitioner.engine.contracts`."""
