"""Cutting an artifact in two: what is cut, how each format is cut, and whether the halves compute the whole."""
