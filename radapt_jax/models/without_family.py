"""A network for those who need no family: the collections, and nothing around them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flax import linen as nn

from radapt_jax.adapters.options import Options
from radapt_jax.adapters.registry import make_options
from radapt_jax.models.backbone import Placement
from radapt_jax.models.resnet26 import ResNet26
from radapt_jax.models.spec import ModelSpec


def resnet26(
    num_classes: int,
    adapter: Options | str = "parallel",
    *,
    width: float = 1.0,
    stages: Sequence[str] | None = None,
    convs: Sequence[str] | None = None,
    **runtime: Any,
) -> nn.Module:
    """Return a ResNet-26 with residual adapters, for those who need no family.

    `model.init(key, images, train=False)` makes the collections `params` (shared 3x3 filters),
    `adapters` (the domain's adapters, norms and head) and `batch_stats`;
    `model.apply(variables, images, train=...)` takes float images (b, h, w, 3), normalised, with
    sides that are multiples of 8, and returns logits (b, num_classes).

    Args:
      num_classes: outputs of the domain's head.
      adapter: a kind ("none", "series", "parallel", "low_rank", "joint", ...), or its options, such
        as `Parallel(init="he_normal")`.
      width: see `ResNet26`.
      stages: which of "early" (with the stem), "mid" and "late" carry adapters; None: all.
      convs: which convolutions of a block do, "first" and "second"; None: both.
      runtime: fields of `adapters.base.Runtime`, such as dtype.

    Raises:
      ValueError: an unknown name, a width without whole channels, or no class; see `ModelSpec`.
    """
    placement = Placement(
        None if stages is None else tuple(stages), None if convs is None else tuple(convs)
    )
    options = make_options(adapter) if isinstance(adapter, str) else adapter
    return ModelSpec(ResNet26(width), options, placement).build(num_classes, **runtime)
