"""One file for each way to find cuts worth weighing; see `partitioner.problem.Solver`."""
