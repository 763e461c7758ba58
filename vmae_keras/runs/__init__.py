"""The run folder: its files, their formats and names."""

from typing import Literal, get_args

Head = Literal["new", "mapped"]  # mapped: the start's head, with its classes matched by name
HEADS = get_args(Head)
