"""Checks of arguments, with the same message everywhere."""


def check_at_least(least: int, **values: int) -> None:
    """Raise ValueError unless each value is at least `least`."""
    for name, value in values.items():
        if value < least:
            raise ValueError(f"`{name}` must be at least {least}. Received: {name}={value}.")


def check_probabilities(**values: float) -> None:
    """Raise ValueError unless each value is from 0 to 1."""
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ValueError(f"`{name}` must be from 0 to 1. Received: {name}={value}.")
