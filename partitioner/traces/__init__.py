"""Traces of the link and of the load: read from files in several formats, generated from a seed, filled in, merged."""
