"""EfficientNet-Lite 0 to 4: blocks of cheap depthwise convolutions (Tan and Le 2019, table 1).

The Lite networks have ReLU6 and no squeeze-and-excitation; their stem, their top and their first
and last stages do not grow from 0 to 4.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

from flax import linen as nn
from jaxtyping import Array, Float

from radapt_jax.adapters.base import Runtime
from radapt_jax.adapters.options import Options
from radapt_jax.models.backbone import Backbone, Convolution, Placement
from radapt_jax.models.inverted_residuals import Layer, Plan, Recipe, Stage
from radapt_jax.nn.layers import DomainHead
from radapt_jax.nn.norm import NormRule
from radapt_jax.utils.checks import number

STEM, TOP = 32, 1280  # channels at width 1
# Of a stage: blocks, side of the depthwise filter, stride, expansion, channels.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


@dataclasses.dataclass(frozen=True)
class EfficientNetLite(Backbone):
    """A network of the family, by how much wider and deeper than Lite0 it is.

    Args:
      width: channel multiplier, a multiple of 1/4; channels are rounded to multiples of 8.

    Class attributes:
      wider, deeper: factors of channels and blocks of the stages.
      size: side of the images that the published weights were trained on, in pixels.

    Raises:
      ValueError: another width.
    """

    # Where a convolution is in no block, it goes with its stage; the top's is named "expand".
    stages: ClassVar = ("stem", *(f"stage{at + 1}" for at in range(len(STAGES))), "top")
    convs: ClassVar = ("expand", "depthwise", "project")
    usual_convs: ClassVar = ("depthwise",)  # a 1x1 α on a 1x1 convolution is as large as that
    # The published networks keep 0.99 of a statistic: too much for a domain of a few hundred steps.
    norm: ClassVar[NormRule] = NormRule(epsilon=1e-3)
    checks: ClassVar = {"width": number("(0, 64]")}
    wider: ClassVar[float] = 1.0
    deeper: ClassVar[float] = 1.0
    size: ClassVar[int]

    width: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "width", float(self.width))
        if self.width * 4 % 1:
            nearest = max(round(self.width * 4), 1) / 4
            raise ValueError(
                f"found width {self.width}; expected a multiple of 1/4, such as {nearest:g}, which "
                f"gives the stem {round(STEM * nearest)} channels."
            )

    def stem(self) -> Layer:
        return Layer("stem", rounded(STEM * self.width), size=3, stride=2)

    def top(self) -> Layer:
        return Layer("top", rounded(TOP * self.width))

    def blocks(self) -> tuple[Plan, ...]:
        """Return the blocks of all stages, from the image on."""
        plans: list[Plan] = []
        inputs = self.stem().features
        for stage, (count, size, stride, expansion, wide) in enumerate(STAGES, start=1):
            if 1 < stage < len(STAGES):
                count = math.ceil(count * self.deeper)
            outputs = rounded(wide * self.wider * self.width)
            for block in range(1, count + 1):
                step = stride if block == 1 else 1
                inside = inputs * expansion
                layers = (
                    *((Layer("expand", inside),) if expansion > 1 else ()),
                    Layer("depthwise", inside, size, step, groups=inside),
                    Layer("project", outputs, linear=True),
                )
                plans.append(Plan(stage, block, layers, step == 1 and inputs == outputs))
                inputs = outputs
        return tuple(plans)

    def layers(self) -> dict[str, Layer]:
        """Return all layers by their paths, from the image on."""
        inside = {
            f"stage{plan.stage}/block{plan.block}/{layer.conv}": layer
            for plan in self.blocks()
            for layer in plan.layers
        }
        return {"stem": self.stem(), **inside, "top": self.top()}

    def convolutions(self) -> tuple[Convolution, ...]:
        return tuple(
            Convolution(path, f"{path}_norm", layer.groups) for path, layer in self.layers().items()
        )

    def build(
        self,
        num_classes: int,
        adapter: Options,
        placement: Placement,
        *,
        folded_norms: bool,
        runtime: Runtime,
    ) -> nn.Module:
        recipe = Recipe(adapter, placement, folded_norms, self.norm, runtime)
        return _Network(self, num_classes, recipe)


class EfficientNetLite0(EfficientNetLite):
    """See `EfficientNetLite`."""

    name: ClassVar[str] = "efficientnet_lite0"
    size: ClassVar[int] = 224


class EfficientNetLite1(EfficientNetLite):
    """See `EfficientNetLite`."""

    name: ClassVar[str] = "efficientnet_lite1"
    deeper: ClassVar[float] = 1.1
    size: ClassVar[int] = 240


class EfficientNetLite2(EfficientNetLite):
    """See `EfficientNetLite`."""

    name: ClassVar[str] = "efficientnet_lite2"
    wider: ClassVar[float] = 1.1
    deeper: ClassVar[float] = 1.2
    size: ClassVar[int] = 260


class EfficientNetLite3(EfficientNetLite):
    """See `EfficientNetLite`."""

    name: ClassVar[str] = "efficientnet_lite3"
    wider: ClassVar[float] = 1.2
    deeper: ClassVar[float] = 1.4
    size: ClassVar[int] = 280


class EfficientNetLite4(EfficientNetLite):
    """See `EfficientNetLite`."""

    name: ClassVar[str] = "efficientnet_lite4"
    wider: ClassVar[float] = 1.4
    deeper: ClassVar[float] = 1.8
    size: ClassVar[int] = 300


LITES: tuple[type[EfficientNetLite], ...] = (
    *(EfficientNetLite0, EfficientNetLite1, EfficientNetLite2),
    *(EfficientNetLite3, EfficientNetLite4),
)


def rounded(channels: float) -> int:
    """Return the nearest multiple of 8, the next one where that is less than 0.9 of `channels`."""
    nearest = max(int(channels + 4) // 8 * 8, 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


class _Network(nn.Module):
    """The network itself."""

    backbone: EfficientNetLite
    num_classes: int
    recipe: Recipe

    @nn.compact
    def __call__(self, images: Float[Array, "b h w 3"], *, train: bool) -> Float[Array, "b k"]:
        """Return the logits (float32 or wider) of normalised NHWC images of any sides.

        Raises:
          ValueError: images that are not (b, h, w, 3).
        """
        self.backbone.check_sides(images.shape)
        recipe, plans = self.recipe, self.backbone.blocks()
        x = recipe.through(images, self.backbone.stem(), recipe.placement.has("stem"), train=train)
        for stage in range(1, len(STAGES) + 1):
            inside = tuple(plan for plan in plans if plan.stage == stage)
            x = Stage(inside, recipe, name=f"stage{stage}")(x, train=train)
        x = recipe.through(
            x, self.backbone.top(), recipe.placement.has("top", "expand"), train=train
        )
        return DomainHead(self.num_classes, name="head")(x.mean((1, 2)))
