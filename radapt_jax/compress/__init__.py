"""Compression of dense adapters to low rank, each domain alone or all jointly.

Start with `family.compress_family`. `svd` is the mathematics (CVPR 2018, section 3.4), `weighted`
that of factors that lose what matters least, by `moments` of images, and `ranks` chooses how much
of each layer to keep.
"""

from radapt_jax.compress.family import compress_family
from radapt_jax.compress.join import join
from radapt_jax.compress.moments import Moments, moments_of
from radapt_jax.compress.ranks import rank_rule

__all__ = ["Moments", "compress_family", "join", "moments_of", "rank_rule"]
