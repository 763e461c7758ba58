"""Adapters of the conformance suite to each implementation. Each may import the framework that it needs."""
