"""Trained models in, verified artifacts out."""
