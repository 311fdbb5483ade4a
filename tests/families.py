"""Families with adapters and statistics at random, for tests of what is done with families."""

import dataclasses
from typing import ClassVar

import numpy as np
from flax import linen as nn

from radapt_jax import (
    Family,
    Member,
    ModelSpec,
    Placement,
    ResNet26,
    Shared,
    initial_variables,
)
from radapt_jax.adapters import AdaptedConv, NoAdapter, Options, make_options
from radapt_jax.models import Backbone, Convolution
from radapt_jax.nn.geometry import Geometry
from radapt_jax.nn.layers import DomainHead
from radapt_jax.nn.norm import DomainNorm


def whole(split, positions=None):
    """Return images of one shape, uint8 (n, h, w, 3), whole; all of a split if not told which."""
    positions = range(len(split)) if positions is None else positions
    return np.stack([split.image(position) for position in positions])


KINDS = ("none", "parallel", "series", "low_rank")


def network(kind="none", width=0.125, *, made=ResNet26, stages=None, convs=None, **options):
    """A network with adapters of a kind; `options` are the kind's."""
    return ModelSpec(made(width), make_options(kind, **options), Placement(stages, convs))


def spec_of(kind, width=0.125, made=ResNet26):
    return network(kind, width, made=made, init="he_normal")


def member_of(data, kind, seed, *, own_weights=False, width=0.125, made=ResNet26, scale=0.2):
    """A member with adapters, norms and statistics at random, but near those of the backbone."""
    spec = spec_of(kind, width, made)
    variables = initial_variables(spec, data.domain.num_classes, seed)
    stream = np.random.default_rng(seed)

    def shake(path, leaf):
        if path[-1] in ("kernel", "beta", "gamma"):
            return (leaf * scale if "adapter" in path else leaf).astype(np.float32)
        return (leaf + 0.2 * stream.uniform(0, 1, leaf.shape)).astype(np.float32)

    def walk(tree, path):
        return {
            key: walk(value, (*path, key))
            if isinstance(value, dict)
            else shake((*path, key), value)
            for key, value in tree.items()
        }

    own = {name: walk(variables[name], (name,)) for name in ("adapters", "batch_stats")}
    if own_weights:
        own["params"] = variables["params"]
    return Member(data.domain, spec, own, method=kind)


def of_classes(data, count):
    """A domain as `data`, with as many classes."""
    domain = dataclasses.replace(data.domain, classes=tuple(map(str, range(count))))
    return dataclasses.replace(data, domain=domain)


def empty_family(width=0.125, made=ResNet26):
    params = initial_variables(spec_of("none", width, made), 2, seed=0)["params"]
    return Family(Shared(params, made(width)))


def two_domains(digits, faces, width):
    """A family of two domains with parallel adapters."""
    family = empty_family(width)
    family.add("digits", member_of(digits, "parallel", 1, width=width))
    family.add("faces", member_of(faces, "parallel", 2, width=width))
    return family


@dataclasses.dataclass(frozen=True)
class Tiny(Backbone):
    """Two convolutions."""

    name: ClassVar[str] = "tiny"
    stages: ClassVar[tuple[str, ...]] = ("only",)
    convs: ClassVar[tuple[str, ...]] = ("one", "two")
    multiple_of: ClassVar[int] = 2

    channels: int = 8

    def build(self, num_classes, adapter, placement, *, folded_norms, runtime):
        return TinyNetwork(self, num_classes, adapter, placement, folded_norms, runtime)

    def convolutions(self):
        return tuple(Convolution(name, f"{name}_norm") for name in self.convs)


class TinyNetwork(nn.Module):
    backbone: Tiny
    num_classes: int
    adapter: Options
    placement: Placement
    folded_norms: bool
    runtime: object

    @nn.compact
    def __call__(self, images, *, train):
        self.backbone.check_sides(images.shape)
        x = images
        for position, name in enumerate(self.backbone.convs):
            adapter = self.adapter if name in self.placement.convs else NoAdapter()
            channels, stride = self.backbone.channels, 1 + position
            conv = AdaptedConv(
                channels,
                geometry=Geometry(stride),
                adapter=adapter,
                position=position,
                runtime=self.runtime,
                name=name,
            )
            norm = DomainNorm(
                self.runtime.dtype, self.runtime.norm_axis, self.folded_norms, name=f"{name}_norm"
            )
            x = nn.relu(norm(conv(x, train=train), train=train))
        return DomainHead(self.num_classes, name="head")(x.mean((1, 2)))
