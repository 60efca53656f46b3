"""The calibration doctor: what is wrong with a calibration set, by its samples and by what they do in the model."""
