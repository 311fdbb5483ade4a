"""Import of ResNets that were trained with PyTorch, by torchvision's and timm's names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from radapt_jax.convert import imagenet
from radapt_jax.convert.layout import Layout, check_names
from radapt_jax.convert.torch import arranged, named, source_family
from radapt_jax.data.domain import RGB, Interpolation
from radapt_jax.family.family import Family
from radapt_jax.models.resnet import RESNETS, BottleneckResNet, ResNet
from radapt_jax.models.spec import ModelSpec
from radapt_jax.utils import trees

STEM, BLOCK, THIRD = "conv1.weight", r"layer(\d)\.(\d+)\.", r"layer\d\.\d+\.(conv|bn)3\."
SIZES = {7: (224, 256), 3: (32, 32)}  # of images and of their shorter sides, by the stem's filter


def family_of_resnet(
    state_dict: Mapping[str, Any],
    *,
    name: str = "imagenet",
    classes: Sequence[str] | None = None,
    mean: RGB = imagenet.MEAN,
    std: RGB = imagenet.STD,
    size: int | None = None,
    resize: int | None = None,
    interpolation: Interpolation = "bilinear",
) -> Family:
    """Return a family whose source domain is that of a ResNet, trained with PyTorch.

    Names are torchvision's and timm's, which are the same for plain ResNets. They tell the depth,
    the arrays width, stem and class count: a stem of 3x3 pixels is taken for one of stride 1
    without pooling, `small_input`. The family predicts with the source domain, and new domains
    start from its filters and norms.

    Args:
      state_dict: original names to arrays (NumPy, or anything `np.asarray` takes; for PyTorch
        tensors call `.numpy()` first). A leading "module." is dropped.
      name: what the source domain is called from now on.
      classes: names in label order; None: ImageNet's for a head of 1,000 classes, else "0", "1"
        and so on.
      mean, std: what its images were normalised with, for images scaled to [0, 1]; default: those
        of ImageNet.
      size: side of the square that the network saw, in pixels; None: 224, or 32 for a small stem.
      resize: length to which the shorter side of images was first resized; None: 256, or 32. A
        crop fraction of timm's is size / resize.
      interpolation: "bilinear", as torchvision trains, or "bicubic", as most of timm's are trained.

    Raises:
      ValueError: tensors that are missing or not known, or that make no such ResNet (grouped and
        wide ones have the same names); names for another class count than the head's, or a fact
        that `Domain` refuses.
    """
    tensors = named(state_dict)
    made = _depth_of(tensors)
    places = LAYOUT.places(made())
    check_names(tensors, places, made.name)
    side = _side_of_stem(tensors)
    leaves = arranged(tensors, places.__getitem__)
    width = leaves["params/stem/kernel"].shape[-1] / made.stem_channels
    count = leaves["adapters/head/bias"].size
    facts = {
        "mean": mean,
        "std": std,
        "size": SIZES[side][0] if size is None else size,
        "resize": SIZES[side][1] if resize is None else resize,
        "interpolation": interpolation,
    }
    names = imagenet.imagenet_classes(count) if classes is None else classes
    spec = ModelSpec(made(width, small_input=side == 3))
    return source_family(trees.unflatten(leaves), spec, name, names, **facts)


def _depth_of(tensors: Mapping[str, Any]) -> type[ResNet]:
    """Return the network with as many blocks in every layer, and as many convolutions in a block.

    Raises:
      ValueError: there is none.
    """
    found = {match.groups() for name in tensors if (match := re.match(BLOCK, name))}
    layers = [layer for layer, _ in found]
    blocks = tuple(layers.count(layer) for layer in sorted(set(layers)))
    bottleneck = any(re.match(THIRD, name) for name in tensors)
    for made in RESNETS:
        if (made.blocks, issubclass(made, BottleneckResNet)) == (blocks, bottleneck):
            return made
    known = ", ".join(f"{made.name} {made.blocks}" for made in RESNETS)
    raise ValueError(
        f"found {blocks} blocks in layers 1 to {len(blocks)}, of {3 if bottleneck else 2} "
        f"convolutions each; expected those of one of {known}, of 2 convolutions up to resnet34 "
        "and of 3 from resnet50."
    )


def _side_of_stem(tensors: Mapping[str, Any]) -> int:
    shape = np.shape(tensors[STEM])
    if len(shape) != 4 or shape[2:] not in ((7, 7), (3, 3)):
        raise ValueError(
            f"found {STEM} of shape {shape}; expected a stem of 7x7 pixels, or of 3x3 for small "
            "images."
        )
    return shape[2]


def _layer(path: str) -> str:
    """Return what PyTorch calls `stem`, `stage1/block1/norm1`, `stage2/block1/shortcut`, ..."""
    if path in ("stem", "stem_norm"):
        return "conv1" if path == "stem" else "bn1"
    match = re.fullmatch(r"stage(\d)/block(\d+)/(?:(conv|norm)(\d)|shortcut(_norm)?)", path)
    assert match is not None, path
    block = f"layer{match[1]}.{int(match[2]) - 1}"
    if match[3] is None:
        return f"{block}.downsample.{1 if match[5] else 0}"
    return f"{block}.{'conv' if match[3] == 'conv' else 'bn'}{match[4]}"


LAYOUT = Layout("fc", _layer, _layer)
