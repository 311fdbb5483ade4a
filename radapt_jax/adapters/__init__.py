"""Adapters: the small modules that steer shared convolutions to a domain.

Start with `base`, the contract that every kind fulfils; each kind is one file, and `registry`
lists them all. `conv` is the shared convolution that carries an adapter.
"""

from radapt_jax.adapters.base import Adapter, Leaf, Runtime
from radapt_jax.adapters.controller import Controller
from radapt_jax.adapters.conv import AdaptedConv
from radapt_jax.adapters.conv_adapter import ConvAdapter
from radapt_jax.adapters.conv_lora import ConvLora, JointConvLora
from radapt_jax.adapters.low_rank import Joint, LowRank
from radapt_jax.adapters.mask import AffineMask, Mask
from radapt_jax.adapters.modulation import JointModulation, LowRankModulation, Modulation
from radapt_jax.adapters.none import NoAdapter
from radapt_jax.adapters.options import Options
from radapt_jax.adapters.parallel import Parallel
from radapt_jax.adapters.random_basis import RandomBasis, Vera
from radapt_jax.adapters.registry import KINDS, kind_of, make_options
from radapt_jax.adapters.series import Series

__all__ = [
    "KINDS",
    "AdaptedConv",
    "Adapter",
    "AffineMask",
    "Controller",
    "ConvAdapter",
    "ConvLora",
    "Joint",
    "JointConvLora",
    "JointModulation",
    "Leaf",
    "LowRank",
    "LowRankModulation",
    "Mask",
    "Modulation",
    "NoAdapter",
    "Options",
    "Parallel",
    "RandomBasis",
    "Runtime",
    "Series",
    "Vera",
    "kind_of",
    "make_options",
]
