"""Layers and losses: a 3x3 convolution with fast gradients, and a domain's batch norm and head.

Start with `conv`. `norm` and `layers` keep their variables in the domain's own collections;
`starts` says how variables are initialised, and `losses` has the cross-entropy.
"""

from radapt_jax.nn.conv import convolve
from radapt_jax.nn.layers import ChannelDropout, DomainHead
from radapt_jax.nn.losses import cross_entropy
from radapt_jax.nn.norm import DomainNorm

__all__ = ["ChannelDropout", "DomainHead", "DomainNorm", "convolve", "cross_entropy"]
