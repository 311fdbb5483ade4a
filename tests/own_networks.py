"""Networks as people write them, in plain Linen: they know nothing of this library."""

import functools
from typing import Any

import jax.numpy as jnp
from flax import linen as nn


class Bottleneck(nn.Module):
    features: int
    stride: int
    norm: Any

    @nn.compact
    def __call__(self, x):
        conv = functools.partial(nn.Conv, use_bias=False)
        y = nn.relu(self.norm()(conv(self.features, (1, 1))(x)))
        y = nn.relu(self.norm()(conv(self.features, (3, 3), (self.stride, self.stride))(y)))
        y = self.norm(scale_init=nn.initializers.zeros)(conv(2 * self.features, (1, 1))(y))
        if x.shape != y.shape:
            shortcut = conv(2 * self.features, (1, 1), (self.stride, self.stride), name="shortcut")
            x = self.norm(name="shortcut_norm")(shortcut(x))
        return nn.relu(x + y)


class ResNet(nn.Module):
    """Batch norms in the layers' order, momentum of its own, lists in its fields."""

    num_classes: int
    features: Any = (4, 6)
    wrap: Any = None

    @nn.compact
    def __call__(self, x, train=True):
        norm = functools.partial(nn.BatchNorm, use_running_average=not train, momentum=0.8)
        x = nn.Conv(8, (7, 7), (2, 2), padding=[(3, 3), (3, 3)], name="stem")(x)
        x = nn.max_pool(nn.relu(norm(name="bn")(x)), (3, 3), (2, 2), "SAME")
        block = self.wrap(Bottleneck) if self.wrap else Bottleneck
        for index, features in enumerate(self.features):
            x = block(features, 1 + index, norm, name=f"block{index}")(x)
        return nn.Dense(self.num_classes)(x.mean((1, 2)))


class ConvNeXt(nn.Module):
    """Depthwise 7x7 filters, LayerNorm, dense layers, a classifier that is not alone; no flag."""

    num_classes: int

    def setup(self):
        self.stem = nn.Conv(8, (4, 4), (4, 4), padding="VALID")
        self.depthwise = nn.Conv(8, (7, 7), feature_group_count=8)
        self.norm = nn.LayerNorm()
        self.wide = nn.Dense(16)
        self.narrow = nn.Dense(8)
        self.head = nn.Sequential([nn.LayerNorm(), nn.Dense(self.num_classes)])

    def __call__(self, images):
        x = self.stem(images)
        x = x + self.narrow(nn.gelu(self.wide(self.norm(self.depthwise(x)))))
        return self.head(x.mean((1, 2)))


class Encoder(nn.Module):
    @nn.compact
    def __call__(self, x, deterministic):
        y = nn.LayerNorm()(x)
        x = x + nn.MultiHeadDotProductAttention(2, name="attention")(y)
        y = nn.gelu(nn.Dense(16, name="mlp1")(nn.LayerNorm()(x)))
        y = nn.Dropout(0.2, rng_collection="noise")(y, deterministic=deterministic)
        return x + nn.Dense(8, name="mlp2")(y)


class ViT(nn.Module):
    """Patches, positions of one size, attention, dropout with a stream of its own."""

    num_classes: int

    @nn.compact
    def __call__(self, images, *, deterministic):
        x = nn.Conv(8, (4, 4), (4, 4), padding="VALID", name="patches")(images)
        x = x.reshape(x.shape[0], -1, 8)
        x = x + self.param("positions", nn.initializers.normal(0.1), (1, x.shape[1], 8))
        for index in range(2):
            x = Encoder(name=f"block{index}")(x, deterministic)
        logits = nn.Dense(self.num_classes, name="classifier")(nn.LayerNorm()(x).mean(1))
        return jnp.asarray(logits, jnp.float32)
