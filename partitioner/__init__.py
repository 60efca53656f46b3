"""Cuts between edge and cloud."""
