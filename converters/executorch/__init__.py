"""Quantize and lower exported programs to ExecuTorch."""
