"""Recipes; each has `get_config`."""
