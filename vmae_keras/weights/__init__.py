"""Published weights: sources, file formats, and the names and shapes of tensors."""
