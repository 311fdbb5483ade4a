"""Compression of dense adapters to low rank, each domain alone or all jointly.

Start with `family.compress_family`. `svd` is the mathematics (CVPR 2018, section 3.4), and `ranks`
chooses how much of each layer to keep.
"""

from radapt_jax.compress.family import compress_family, join
from radapt_jax.compress.ranks import rank_rule

__all__ = ["compress_family", "join", "rank_rule"]
