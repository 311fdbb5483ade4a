"""Imports networks from elsewhere, one file for each origin.

Start with `original`: weights of the authors' PyTorch code become variables, or a family.
`torch` is what imports from PyTorch share, `state_dict` reads files, and `recognise` tells whose
they are.
"""

from radapt_jax.convert.original import family_of_original, import_original
from radapt_jax.convert.recognise import ORIGINS
from radapt_jax.convert.resnet_cifar import family_of_resnet_cifar
from radapt_jax.convert.state_dict import state_dict_of
from radapt_jax.convert.torch_file import read_torch

__all__ = [
    "ORIGINS",
    "family_of_original",
    "family_of_resnet_cifar",
    "import_original",
    "read_torch",
    "state_dict_of",
]
