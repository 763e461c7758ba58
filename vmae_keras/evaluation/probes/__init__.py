"""Probes of frozen encoders: linear, attentive and nearest-neighbour; see `probe`."""

from typing import Literal, get_args

Probe = Literal["linear", "attentive", "knn"]
PROBES = get_args(Probe)
