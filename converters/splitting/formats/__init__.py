"""One file for each format that can be cut; the folder is the registry."""
