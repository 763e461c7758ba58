"""What SPEC.md asks of any implementation, as checks that one reaches through an adapter.

python -m spec.conformance MODULE:ADAPTER
"""
