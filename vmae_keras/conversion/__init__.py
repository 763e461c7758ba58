"""Convert weights between implementations, and verify the result."""
