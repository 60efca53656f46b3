"""Templates of the Android project."""
