"""Edit, quantize and emit TFLite flatbuffers."""
