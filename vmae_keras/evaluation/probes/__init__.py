"""Probes of frozen encoders: linear, attentive and nearest-neighbour; see `probe`."""
