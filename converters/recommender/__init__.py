"""Recommenders as structure and weights: recognised in a program, emitted by the targets."""
