"""Whether the backends of this machine agree: `vmae consistency`."""
