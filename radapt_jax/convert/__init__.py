"""Imports networks from elsewhere, one file for each origin, and exports domains to there.

Start with `original`: weights of the authors' PyTorch code become variables, or a family.
`torch` is what imports from PyTorch share, `layout` its names, `state_dict` reads files, `packages`
finds those of packages, and `recognise` tells whose they are; `export_torch` writes them.
"""

from radapt_jax.convert.efficientnet_lite import family_of_efficientnet_lite
from radapt_jax.convert.export_torch import export_torch
from radapt_jax.convert.original import family_of_original, import_original
from radapt_jax.convert.recognise import ORIGINS
from radapt_jax.convert.resnet import family_of_resnet
from radapt_jax.convert.resnet_cifar import family_of_resnet_cifar
from radapt_jax.convert.state_dict import state_dict_of
from radapt_jax.convert.torch_file import read_torch

__all__ = [
    "ORIGINS",
    "export_torch",
    "family_of_efficientnet_lite",
    "family_of_original",
    "family_of_resnet",
    "family_of_resnet_cifar",
    "import_original",
    "read_torch",
    "state_dict_of",
]
