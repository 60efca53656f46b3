"""Arm Ethos-U: what its compiler, vela, estimates of a full-integer .tflite file."""
