"""Adapters: the small modules that steer shared convolutions to a domain.

Start with `base`, the contract that every kind fulfils; each kind is one file, and `registry`
lists them all. `conv` is the shared convolution that carries an adapter.
"""

from radapt_jax.adapters.base import Adapter, Leaf, Options, Runtime
from radapt_jax.adapters.conv import AdaptedConv
from radapt_jax.adapters.low_rank import Joint, LowRank
from radapt_jax.adapters.none import NoAdapter
from radapt_jax.adapters.parallel import Parallel
from radapt_jax.adapters.registry import KINDS, kind_of, make_options
from radapt_jax.adapters.series import Series

__all__ = [
    "KINDS",
    "AdaptedConv",
    "Adapter",
    "Joint",
    "Leaf",
    "LowRank",
    "NoAdapter",
    "Options",
    "Parallel",
    "Runtime",
    "Series",
    "kind_of",
    "make_options",
]
