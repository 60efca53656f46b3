"""Estimate how long layers take on a device that is not at hand, from what was measured there on other models."""
