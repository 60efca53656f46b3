"""TensorFlow Lite Micro, by its wheel: always in a child process first, because some models end their process."""
