"""The conformance suite's views of implementations; each may import the framework that it needs."""
