"""Checks of SPEC.md for any implementation, which is reached through an adapter.

python -m spec.conformance MODULE:ADAPTER
"""
