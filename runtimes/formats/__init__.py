"""Read artifact files without running them: layers, weights, faults."""
