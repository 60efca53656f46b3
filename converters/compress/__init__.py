"""What changes the weights of a model: training with quantization in mind, and smaller tables."""
