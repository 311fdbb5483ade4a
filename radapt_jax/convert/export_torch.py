"""Export of one domain to PyTorch: a state_dict in a safetensors file, by the names of its origin.

    model = torchvision.models.resnet50(num_classes=3)
    model.load_state_dict(safetensors.torch.load_file("rocks.safetensors"))

The domain is folded first, so that the network is a plain one. What the network is fed with, and
the names of its classes, are in the file's metadata under "domain", as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.numpy

from radapt_jax.convert import efficientnet_lite, original, resnet, resnet_cifar
from radapt_jax.convert.layout import Layout
from radapt_jax.family.family import Family
from radapt_jax.models.efficientnet_lite import LITES
from radapt_jax.models.resnet import RESNETS
from radapt_jax.models.resnet26 import ResNet26
from radapt_jax.models.resnet_cifar import DEPTHS
from radapt_jax.utils import files

LAYOUTS: dict[str, Callable[[Any], Layout]] = {  # of a backbone, by its name
    **{made.name: lambda _: resnet.LAYOUT for made in RESNETS},
    **{made.name: lambda _: resnet_cifar.LAYOUT for made in DEPTHS},
    **{made.name: efficientnet_lite.layout_of for made in LITES},
    ResNet26.name: lambda _: original.LAYOUT,
}


def export_torch(family: Family, domain: str, path: str | Path) -> None:
    """Write a domain, folded, as a safetensors file of PyTorch's names, layouts and all tensors.

    A ResNet of width 1 with its usual stem loads strictly into torchvision's and timm's classes, a
    CIFAR ResNet into those of pytorch_resnet_cifar10, an EfficientNet-Lite into timm's
    `tf_efficientnet_lite0` to `4`, and a ResNet-26 into the original code's (one domain, without
    adapters). Counts of batches are 0.

    Args:
      family: with the domain.
      domain: its name.
      path: of the file.

    Raises:
      KeyError: there is no such domain.
      ValueError: it is not known what PyTorch calls the layers of its backbone.
      OSError: nothing can be written there; a file that is there stays unchanged.
    """
    backbone = family[domain].spec.backbone
    if backbone.name not in LAYOUTS:
        raise ValueError(
            f"found backbone {backbone.name!r}, for which PyTorch's names are not known; expected "
            f"one of {list(LAYOUTS)}. Family.export writes any backbone as StableHLO."
        )
    path = Path(path)
    files.check_file_place(path)
    layout, variables = LAYOUTS[backbone.name](backbone), family.fold(domain).weights.variables
    tensors = layout.state_dict(backbone, variables)
    metadata = {"format": "pt", "domain": json.dumps(family[domain].domain.to_json())}
    files.write_atomically(path, safetensors.numpy.save(tensors, metadata))
