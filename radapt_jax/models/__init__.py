"""Backbones, and the description of a network that is saved beside its weights.

Start with `backbone`, the contract that every network fulfils; each network is one file, and
`registry` lists them all; `adapt` makes one of any Linen network. `spec` joins a backbone with an
adapter; `init` draws first variables, and `fold` makes a plain network of an adapted one.
"""

from radapt_jax.models.backbone import Backbone, Convolution, Placement
from radapt_jax.models.efficientnet_lite import (
    EfficientNetLite0,
    EfficientNetLite1,
    EfficientNetLite2,
    EfficientNetLite3,
    EfficientNetLite4,
)
from radapt_jax.models.fold import folded_spec
from radapt_jax.models.init import initial_variables
from radapt_jax.models.ram28 import ResNet28RAM
from radapt_jax.models.registry import BACKBONES, make_backbone
from radapt_jax.models.resnet import ResNet18, ResNet34, ResNet50, ResNet101, ResNet152
from radapt_jax.models.resnet26 import ResNet26
from radapt_jax.models.resnet_cifar import ResNet20, ResNet32, ResNet44, ResNet56, ResNet110
from radapt_jax.models.spec import DTYPES, ModelSpec

__all__ = [
    "BACKBONES",
    "DTYPES",
    "Backbone",
    "Convolution",
    "EfficientNetLite0",
    "EfficientNetLite1",
    "EfficientNetLite2",
    "EfficientNetLite3",
    "EfficientNetLite4",
    "ModelSpec",
    "Placement",
    "ResNet18",
    "ResNet20",
    "ResNet26",
    "ResNet28RAM",
    "ResNet32",
    "ResNet34",
    "ResNet44",
    "ResNet50",
    "ResNet56",
    "ResNet101",
    "ResNet110",
    "ResNet152",
    "folded_spec",
    "initial_variables",
    "make_backbone",
]
