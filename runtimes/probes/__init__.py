"""One file for each thing read from the machine: what it is, how busy, how well connected."""
