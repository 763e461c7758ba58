"""SPEC.md and its float64 NumPy oracle; the library imports neither."""
