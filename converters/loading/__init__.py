"""How model files are told apart, loaded safely and exported; the sources in `converters.sources` are made of these."""
