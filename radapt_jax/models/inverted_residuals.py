"""Inverted residual blocks: wide depthwise convolutions between 1x1 ones (Sandler et al. 2018)."""

from __future__ import annotations

from typing import NamedTuple

from flax import linen as nn
from jaxtyping import Array, Float

from radapt_jax.adapters.base import Runtime
from radapt_jax.adapters.conv import AdaptedConv
from radapt_jax.adapters.none import NoAdapter
from radapt_jax.adapters.options import Options
from radapt_jax.models.backbone import Placement
from radapt_jax.nn.geometry import Geometry
from radapt_jax.nn.norm import DomainNorm, NormRule


class Layer(NamedTuple):
    """One convolution, padded as TensorFlow's SAME, with its norm.

    Args:
      conv: its name; the norm's is the same with "_norm".
      features: outputs.
      size: side of the filter, in pixels.
      stride: pixels from one output to the next.
      groups: of the convolution.
      linear: no ReLU6 follows the norm.
    """

    conv: str
    features: int
    size: int = 1
    stride: int = 1
    groups: int = 1
    linear: bool = False


class Plan(NamedTuple):
    """What a block consists of.

    Args:
      stage, block: numbers from 1.
      layers: expand (unless that would change nothing), depthwise, project.
      residual: the input is added to the output.
    """

    stage: int
    block: int
    layers: tuple[Layer, ...]
    residual: bool


class Recipe(NamedTuple):
    """How all layers of a network are built."""

    adapter: Options
    placement: Placement
    folded_norms: bool
    norm: NormRule
    runtime: Runtime

    def through(
        self, x: Array, layer: Layer, carries: bool, *, position: int = 0, train: bool
    ) -> Float[Array, "b h2 w2 d"]:
        """Return what a layer makes of x; its variables are those of the module that calls this.

        Args:
          x: (b, h, w, c).
          layer: to go through.
          carries: an adapter.
          position: of the convolution in its block.
          train: see `AdaptedConv`.
        """
        conv = AdaptedConv(
            layer.features,
            layer.size,
            Geometry(layer.stride, "same", groups=layer.groups),
            adapter=self.adapter if carries else NoAdapter(),
            position=min(position, 1),
            norm=self.norm,
            runtime=self.runtime,
            name=layer.conv,
        )
        dtype, axis = self.runtime.dtype, self.runtime.norm_axis
        norm = DomainNorm(dtype, axis, self.folded_norms, self.norm, name=f"{layer.conv}_norm")
        y = norm(conv(x, train=train), train=train)
        return y if layer.linear else nn.relu6(y)


class Stage(nn.Module):
    """Blocks, the first of which may halve the image."""

    plans: tuple[Plan, ...]
    recipe: Recipe

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 d"]:
        for plan in self.plans:
            x = Block(plan, self.recipe, name=f"block{plan.block}")(x, train=train)
        return x


class Block(nn.Module):
    """Many channels, filtered one by one, between few."""

    plan: Plan
    recipe: Recipe

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 d"]:
        y = x
        for position, layer in enumerate(self.plan.layers):
            carries = self.recipe.placement.has(f"stage{self.plan.stage}", layer.conv)
            y = self.recipe.through(y, layer, carries, position=position, train=train)
        return x + y if self.plan.residual else y
