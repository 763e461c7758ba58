"""Probes of frozen encoders: linear, attentive, nearest neighbours; see `probe`."""
