"""Recipes: hyper-parameters of each stage of training, from TOML pages into validated dataclasses."""
