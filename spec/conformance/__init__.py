"""The requirements of SPEC.md on any implementation, as checks that use an adapter.

python -m spec.conformance MODULE:ADAPTER
"""
