"""Conversion of weights between implementations, and its verification."""
