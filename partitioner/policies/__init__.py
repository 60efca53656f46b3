"""Policies that move the cut; one file each, the folder is the registry."""
