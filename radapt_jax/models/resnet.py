"""ResNets of 18, 34, 50, 101 and 152 layers (He et al. 2015), as torchvision and timm have them."""

from __future__ import annotations

import abc
import dataclasses
from typing import ClassVar, NamedTuple

from flax import linen as nn
from jaxtyping import Array, Float

from radapt_jax.adapters.base import Runtime
from radapt_jax.adapters.conv import AdaptedConv
from radapt_jax.adapters.options import Options
from radapt_jax.models.backbone import Convolution
from radapt_jax.models.network import WIDTH, Network, Widened, make_norm
from radapt_jax.nn.geometry import Geometry
from radapt_jax.nn.layers import DomainHead
from radapt_jax.nn.pool import max_pool
from radapt_jax.utils.checks import FLAG

EXPANSION = 4  # outputs of a bottleneck over those of its 3x3 convolution


class Layer(NamedTuple):
    """One convolution of a block: the side of its filter in pixels, its outputs, its stride."""

    size: int
    features: int
    stride: int = 1


@dataclasses.dataclass(frozen=True)
class ResNet(Widened):
    """A ResNet for photographs (He et al. 2015, table 1), for images of any sides.

    The stem is a 7x7 convolution and max pooling, which make an image a quarter as large; stages 2
    to 4 halve it. Where a block changes the channels or the sides, its shortcut is a 1x1
    convolution with a norm. Strides are on 3x3 convolutions.

    Args:
      width: see `Widened`; the stem has 64 channels at width 1.
      small_input: the stem is a 3x3 convolution of stride 1 without pooling, for images of about
        32 pixels.

    Class attributes:
      blocks: in each stage.

    Raises:
      ValueError: another width.
    """

    stages: ClassVar[tuple[str, ...]] = ("stem", "stage1", "stage2", "stage3", "stage4")
    checks: ClassVar = {"width": WIDTH, "small_input": FLAG}
    stem_channels: ClassVar[int] = 64
    stage_channels: ClassVar[tuple[int, ...]] = (64, 128, 256, 512)
    blocks: ClassVar[tuple[int, ...]]

    small_input: bool = False

    @abc.abstractmethod
    def layers(self, stage: int, stride: int) -> tuple[Layer, ...]:
        """Return the convolutions of a block in a stage, from 0, shortcuts apart."""

    def projects(self, stage: int, block: int) -> bool:
        """Tell whether the shortcut of a block is a convolution; both are counted from 0."""
        widens = self.layers(0, 1)[-1].features != self.channels(self.stem_channels)
        return block == 0 and (stage > 0 or widens)

    def network(self) -> type[Network]:
        return _Network

    def convolutions(self) -> tuple[Convolution, ...]:
        found = [Convolution("stem", "stem_norm")]
        for stage, blocks in enumerate(self.blocks):
            for block in range(blocks):
                path = f"stage{stage + 1}/block{block + 1}"
                for conv in range(len(self.layers(stage, 1))):
                    found.append(Convolution(f"{path}/conv{conv + 1}", f"{path}/norm{conv + 1}"))
                if self.projects(stage, block):
                    found.append(Convolution(f"{path}/shortcut", f"{path}/shortcut_norm"))
        return tuple(found)


class BasicResNet(ResNet):
    """A ResNet of blocks with two 3x3 convolutions, both of which usually carry adapters."""

    convs: ClassVar[tuple[str, ...]] = ("first", "second", "shortcut")
    usual_convs: ClassVar[tuple[str, ...]] = ("first", "second")

    def layers(self, stage: int, stride: int) -> tuple[Layer, ...]:
        features = self.channels(self.stage_channels[stage])
        return Layer(3, features, stride), Layer(3, features)


class BottleneckResNet(ResNet):
    """A ResNet of blocks with a 1x1, a 3x3 and a 1x1 convolution; the 3x3 usually carries adapters.

    A dense adapter on a 1x1 convolution is as large as the convolution: for those there are
    low-rank and joint adapters.
    """

    convs: ClassVar[tuple[str, ...]] = ("first", "second", "third", "shortcut")
    usual_convs: ClassVar[tuple[str, ...]] = ("second",)

    def layers(self, stage: int, stride: int) -> tuple[Layer, ...]:
        features = self.channels(self.stage_channels[stage])
        return Layer(1, features), Layer(3, features, stride), Layer(1, EXPANSION * features)


class ResNet18(BasicResNet):
    """18 layers; see `ResNet`."""

    name: ClassVar[str] = "resnet18"
    blocks: ClassVar[tuple[int, ...]] = (2, 2, 2, 2)


class ResNet34(BasicResNet):
    """34 layers; see `ResNet`."""

    name: ClassVar[str] = "resnet34"
    blocks: ClassVar[tuple[int, ...]] = (3, 4, 6, 3)


class ResNet50(BottleneckResNet):
    """50 layers; see `ResNet`."""

    name: ClassVar[str] = "resnet50"
    blocks: ClassVar[tuple[int, ...]] = (3, 4, 6, 3)


class ResNet101(BottleneckResNet):
    """101 layers; see `ResNet`."""

    name: ClassVar[str] = "resnet101"
    blocks: ClassVar[tuple[int, ...]] = (3, 4, 23, 3)


class ResNet152(BottleneckResNet):
    """152 layers; see `ResNet`."""

    name: ClassVar[str] = "resnet152"
    blocks: ClassVar[tuple[int, ...]] = (3, 8, 36, 3)


RESNETS: tuple[type[ResNet], ...] = (ResNet18, ResNet34, ResNet50, ResNet101, ResNet152)


class _Network(Network):
    """The network itself."""

    backbone: ResNet

    @nn.compact
    def __call__(self, images: Float[Array, "b h w 3"], *, train: bool) -> Float[Array, "b k"]:
        """Return the logits (float32 or wider) of normalised NHWC images.

        Raises:
          ValueError: images that are not (b, h, w, 3).
        """
        backbone = self.backbone
        backbone.check_sides(images.shape)
        size, stride = (3, 1) if backbone.small_input else (7, 2)
        stem = Layer(size, backbone.channels(backbone.stem_channels), stride)
        through = _Through(self.folded_norms, self.runtime, train)
        x = nn.relu(through(images, stem, self.adapter_at("stem"), ("stem", "stem_norm")))
        if not backbone.small_input:
            x = max_pool(x, train=train)
        for stage in range(len(backbone.blocks)):
            x = self.stage(stage)(x, train=train)
        return DomainHead(self.num_classes, name="head")(x.mean((1, 2)))

    def stage(self, index: int) -> nn.Module:
        """Return a stage, from 0."""
        name = self.backbone.stages[index + 1]
        return Stage(
            self.backbone,
            index,
            tuple(self.adapter_at(name, conv) for conv in self.backbone.convs),
            self.folded_norms,
            self.runtime,
            name=name,
        )


class Stage(nn.Module):
    """Blocks, the first of which halves the image, but in the first stage."""

    backbone: ResNet
    index: int  # from 0
    adapters: tuple[Options, ...]  # by the convolutions of a block, as the backbone names them
    folded_norms: bool
    runtime: Runtime

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 d"]:
        for index in range(self.backbone.blocks[self.index]):
            block = Block(
                self.backbone.layers(self.index, 2 if self.index > 0 and index == 0 else 1),
                self.backbone.projects(self.index, index),
                self.adapters,
                self.folded_norms,
                self.runtime,
                name=f"block{index + 1}",
            )
            x = block(x, train=train)
        return x


class Block(nn.Module):
    """Convolutions with norms, and a shortcut: the input itself, or a 1x1 convolution with a norm.

    The last of `adapters` is the shortcut's.
    """

    layers: tuple[Layer, ...]
    projects: bool
    adapters: tuple[Options, ...]
    folded_norms: bool
    runtime: Runtime

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 d"]:
        through = _Through(self.folded_norms, self.runtime, train)
        y, stride = x, 1
        for index, layer in enumerate(self.layers):
            names = f"conv{index + 1}", f"norm{index + 1}"
            y = y if index == 0 else nn.relu(y)
            y = through(y, layer, self.adapters[index], names, min(index, 1))
            stride *= layer.stride
        if self.projects:
            projection = Layer(1, y.shape[-1], stride)
            x = through(x, projection, self.adapters[-1], ("shortcut", "shortcut_norm"))
        return nn.relu(y + x)


class _Through(NamedTuple):
    """What an image is sent through: an adapted convolution and its norm."""

    folded_norms: bool
    runtime: Runtime
    train: bool

    def __call__(
        self,
        x: Float[Array, "b h w c"],
        layer: Layer,
        adapter: Options,
        names: tuple[str, str],
        position: int = 0,
    ) -> Float[Array, "b h2 w2 d"]:
        """Return norm(conv(x)), with both their names, and the convolution's place in its block."""
        conv = AdaptedConv(
            layer.features,
            layer.size,
            Geometry(layer.stride),
            adapter=adapter,
            position=position,
            runtime=self.runtime,
            name=names[0],
        )
        norm = make_norm(self.runtime, self.folded_norms, names[1])
        return norm(conv(x, train=self.train), train=self.train)
