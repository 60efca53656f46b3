"""Serve a half of a cut, or a whole model, over the Open Inference Protocol, and call one served elsewhere."""
