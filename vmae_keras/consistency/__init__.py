"""Comparison of the backends installed on this machine: `vmae consistency`."""
