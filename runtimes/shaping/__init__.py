"""A link of any rate and delay between two programs on one machine, in user space."""
