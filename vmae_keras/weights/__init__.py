"""Published weights: the files they come in, the names and shapes in them, and where they are."""
