"""Values, errors and the registry: the ground every package stands on. Standard library and NumPy only."""
