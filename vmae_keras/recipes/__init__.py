"""Recipes: how each stage trains, as pages of TOML and checked values."""
