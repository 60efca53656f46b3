"""Runs many pure tasks, here or on a cluster, and keeps every result as a Parquet partition named by its content."""
