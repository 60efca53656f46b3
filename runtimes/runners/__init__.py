"""Native programs that run an artifact on a device without Python: one for ExecuTorch, one for LiteRT."""
