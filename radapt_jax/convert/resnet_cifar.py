"""Import of CIFAR ResNets that were trained with PyTorch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from radapt_jax.convert.layout import Layout, check_names
from radapt_jax.convert.torch import arranged, named, source_family
from radapt_jax.data.decathlon.facts import DECATHLON
from radapt_jax.data.domain import RGB
from radapt_jax.family.family import Family
from radapt_jax.models.resnet_cifar import DEPTHS, CifarResNet
from radapt_jax.models.spec import ModelSpec
from radapt_jax.utils import trees

CIFAR10 = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


def family_of_resnet_cifar(
    state_dict: Mapping[str, Any],
    *,
    name: str = "cifar10",
    classes: Sequence[str] | None = None,
    mean: RGB = DECATHLON["imagenet12"].mean,
    std: RGB = DECATHLON["imagenet12"].std,
    size: int = 32,
    resize: int = 32,
) -> Family:
    """Return a family whose source domain is that of a CIFAR ResNet, trained with PyTorch.

    Names are those of https://github.com/akamaster/pytorch_resnet_cifar10, which tell the depth;
    the width and the class count are those of the arrays. The family predicts with the source
    domain, and new domains start from its filters and norms.

    Args:
      state_dict: original names to arrays (NumPy, or anything `np.asarray` takes; for PyTorch
        tensors call `.numpy()` first). A leading "module." is dropped.
      name: what the source domain is called from now on.
      classes: names in label order; None: those of CIFAR-10 where the head has ten outputs, else
        "0", "1" and so on.
      mean, std: what its images were normalised with, for images scaled to [0, 1]; default: those
        of ImageNet, as in that repository.
      size, resize: the square that the network saw and the length that images were first resized
        to, in pixels.

    Raises:
      ValueError: tensors that are missing or not known, or that make no CIFAR ResNet; names for
        another class count than the head's, or a fact that `Domain` refuses.
    """
    tensors = named(state_dict)
    made = _depth_of(tensors)
    places = LAYOUT.places(made())
    check_names(tensors, places, made.name)
    leaves = arranged(tensors, places.__getitem__)
    width = leaves["params/stem/kernel"].shape[-1] / made.stem_channels
    spec = ModelSpec(made(width))
    if classes is None and len(leaves["adapters/head/bias"]) == len(CIFAR10):
        classes = CIFAR10
    facts = {"mean": mean, "std": std, "size": size, "resize": resize}
    return source_family(trees.unflatten(leaves), spec, name, classes, **facts)


def _depth_of(tensors: Mapping[str, Any]) -> type[CifarResNet]:
    """Return the network with as many blocks in a stage as there are of `layer1`."""
    blocks = {match[1] for name in tensors if (match := re.match(r"layer1\.(\d+)\.", name))}
    depths = {made.blocks: made for made in DEPTHS}
    if len(blocks) not in depths:
        raise ValueError(
            f"found {len(blocks)} blocks in layer1; expected {list(depths)}, of "
            f"{[made.name for made in DEPTHS]}. Give the state_dict itself, of a CIFAR ResNet: "
            f"this one begins with {list(tensors)[:3]}."
        )
    return depths[len(blocks)]


def _layer(path: str) -> str:
    """Return what PyTorch calls `stem`, `stem_norm` and `stage1/block1/conv1`."""
    if path in ("stem", "stem_norm"):
        return "conv1" if path == "stem" else "bn1"
    match = re.fullmatch(r"stage(\d+)/block(\d+)/(conv|norm)(\d)", path)
    assert match is not None, path
    kind = "conv" if match[3] == "conv" else "bn"
    return f"layer{match[1]}.{int(match[2]) - 1}.{kind}{match[4]}"


LAYOUT = Layout("linear", _layer, _layer)
