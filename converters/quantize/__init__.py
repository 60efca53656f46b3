"""Uniform quantization in NumPy: scales, packing, ranges, calibration."""
