"""The specification, SPEC.md, and its float64 NumPy oracle. The library imports neither."""
