"""Request-level simulation of one edge, one link and one cloud."""
