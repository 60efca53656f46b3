"""Foreign graphs as torch modules."""
