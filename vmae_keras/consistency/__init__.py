"""Comparison of the backends installed on this machine: `vmae consistency`."""

from vmae_keras.backend import BACKENDS, INFERENCE_BACKENDS

COMPARED_BACKENDS = BACKENDS + INFERENCE_BACKENDS
