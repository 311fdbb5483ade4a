"""Networks from elsewhere; one file for each origin.

Start with `original`: weights of the authors' PyTorch code as variables, or as a family.
`torch` is what all imports from PyTorch share.
"""

from radapt_jax.convert.original import family_of_original, import_original
from radapt_jax.convert.resnet_cifar import family_of_resnet_cifar

__all__ = ["family_of_original", "family_of_resnet_cifar", "import_original"]
