"""Commands of `vmae`: their arguments and their output."""
