"""Reference models and data readers."""
