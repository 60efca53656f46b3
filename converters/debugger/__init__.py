"""Which layer of an artifact is far from the float model, what its error does to the answer, and what would help."""
