"""For people who stay with TensorFlow Lite Micro: what it refuses, by layer, and the sources that it needs."""
