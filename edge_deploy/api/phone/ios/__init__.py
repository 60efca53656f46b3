"""Templates of the iOS package."""
