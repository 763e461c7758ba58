"""Conversion of weights between implementations, and its verification."""

from typing import Literal, get_args

Target = Literal["keras", "official", "hf"]  # formats that can be written
TARGETS = get_args(Target)
