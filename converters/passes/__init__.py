"""Graph rewrites before lowering, one a file."""
