"""Imports networks from elsewhere, one file for each origin.

Start with `original`: weights of the authors' PyTorch code become variables, or a family.
"""

from radapt_jax.convert.original import family_of_original, import_original

__all__ = ["family_of_original", "import_original"]
