"""Acceptance tables and benchmarks: each a module run by `make bench-NAME`, resumable, printing Markdown."""
