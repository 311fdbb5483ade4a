"""A network of one's own as a backbone, and what computes it with a domain's variables."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from radapt_jax.adapters.base import Runtime, is_adapters
from radapt_jax.adapters.options import Options
from radapt_jax.adapters.registry import kind_of
from radapt_jax.models.backbone import Backbone, Convolution, Placement
from radapt_jax.models.own.calling import Call
from radapt_jax.models.own.intercept import Interceptor
from radapt_jax.models.own.layers import Anatomy, Layer
from radapt_jax.models.own.moved import HEAD, Moved
from radapt_jax.nn.norm import NormRule
from radapt_jax.nn.starts import head_init
from radapt_jax.utils import trees


@dataclasses.dataclass(frozen=True, eq=False)
class OwnNetwork(Backbone):
    """A network of one's own; `adapt` makes it.

    Args:
      name: under which it is saved.
      network: the module.
      call: how it is called.
      size: at which shapes of variables are taken.
      head: path of the classifier.
      layers: that can carry adapters.
      anatomy: what the network is made of.
    """

    stages: ClassVar[tuple[str, ...]] = ("network",)

    name: str  # type: ignore[misc]
    network: nn.Module
    call: Call
    size: int
    head: str
    layers: tuple[Layer, ...] = dataclasses.field(repr=False)
    anatomy: Anatomy = dataclasses.field(repr=False)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OwnNetwork) and self._facts() == other._facts()

    def __hash__(self) -> int:
        return hash((self.name, self.size, self.head, self.layers))  # fields may have lists

    def _facts(self) -> tuple[Any, ...]:
        return (self.name, self.size, self.head, self.layers, self.call, self.network)

    def __str__(self) -> str:
        return f"{self.name}, a network of your own"

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name}

    @property
    def convs(self) -> tuple[str, ...]:  # type: ignore[override]
        """Paths of the layers that can carry adapters."""
        return tuple(layer.path for layer in self.layers)

    def convolutions(self) -> tuple[Convolution, ...]:
        return tuple(
            Convolution(layer.path, layer.norm, layer.geometry.groups, layer.axes)
            for layer in self.layers
        )

    def rule_of(self, norm: str) -> NormRule:
        return self.anatomy.rules[norm]

    def example_side(self) -> int:
        return self.size

    def start(self, path: str) -> str | None:
        if path.startswith(HEAD) or is_adapters(path):
            return super().start(path)
        return None

    def initial(self, seed: int) -> Mapping[str, Any]:
        return trees.flatten(self.arranged(self.init(seed)))

    def init(self, seed: int) -> dict[str, Any]:
        """Return the variables that the network itself starts from."""
        images = jnp.zeros((1, self.size, self.size, 3))
        run = functools.partial(self.network.init, method=lambda own, x: self.call(own, x, False))
        key = jax.random.key(seed, impl="rbg")  # XLA takes many times as long for the default's
        return trees.to_numpy(jax.jit(run)(key, images))

    @property
    def moved(self) -> Moved:
        """Where the domain's variables are, in the network and in a family."""
        return Moved(self.head, frozenset(self.anatomy.norms))

    def arranged(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Return the network's own variables as a domain's: params, adapters, batch_stats.

        Args:
          variables: `params`, and `batch_stats` if it has batch norms.

        Raises:
          ValueError: they are not those of this network.
        """
        leaves = trees.flatten(variables)
        what = f"the variables given for {self.name}"
        expected = trees.unflatten(self.anatomy.variables)
        trees.check_like(trees.unflatten(leaves), expected, what)
        found = self.moved.outside(leaves)
        if f"{HEAD}bias" not in found:
            found[f"{HEAD}bias"] = np.zeros(found[f"{HEAD}kernel"].shape[-1], np.float32)
        return trees.collections(found)

    def plain_variables(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Return the variables of a folded domain as the network itself takes them.

            folded = family.fold("rocks")
            plain = backbone.plain_variables(folded.weights.variables)
            logits = MyNetwork(num_classes=3).apply(plain, images, train=False)

        Args:
          variables: of a domain without adapters, whose norms are its own.

        Returns:
          `params`, and `batch_stats` if it has batch norms. The classifier has as many outputs as
          the domain has classes.

        Raises:
          ValueError: there are adapters, norms are folded, or the domain's classifier has a bias
            and that of the network has none.
        """
        leaves = self.moved.inside(trees.flatten(variables))
        bias = f"params/{self.head}/bias"
        if bias not in self.anatomy.variables and np.any(leaves.pop(bias)):
            raise ValueError(
                f"found a domain with biases in its classifier, and a network whose {self.head!r} "
                "has none; give that one a bias: use_bias=True."
            )
        missing = self.anatomy.variables.keys() - leaves.keys()
        if odd := sorted(missing | (leaves.keys() - self.anatomy.variables.keys())):
            raise ValueError(
                f"found variables of adapters or of folded norms: {odd[:3]}. Fold the domain, and "
                "not its norms: family.fold(name).weights.variables."
            )
        return trees.unflatten(leaves)

    def build(
        self,
        num_classes: int,
        adapter: Options,
        placement: Placement,
        *,
        folded_norms: bool,
        runtime: Runtime,
    ) -> Any:
        kind, wanted = kind_of(adapter), placement.convs or ()
        carriers = tuple(
            layer
            for layer in self.layers
            if layer.path in wanted and kind.serves(adapter, layer.path)
        )
        folded = {layer.norm for layer in self.layers if layer.norm} if folded_norms else set()
        return Adapted(self, num_classes, adapter, carriers, frozenset(folded), runtime)


@dataclasses.dataclass(frozen=True)
class Adapted:
    """A network of one's own with a domain's variables; `init` and `apply` are as a Linen module's.

    Args:
      backbone: the network.
      num_classes: outputs of the domain's head.
      adapter: options of the adapters.
      carriers: layers that carry one.
      folded: paths of norms of which only a bias is left.
      runtime: how it is computed.
    """

    backbone: OwnNetwork
    num_classes: int
    adapter: Options
    carriers: tuple[Layer, ...]
    folded: frozenset[str]
    runtime: Runtime

    def init(self, key: Array, images: Float[Array, "b h w 3"], *, train: bool) -> dict[str, Any]:
        """Return fresh variables: `params`, `adapters` and `batch_stats`."""
        own, head = self.backbone, jax.random.fold_in(key, 1)
        with nn.intercept_methods(self._interceptor(None, train)):
            found = own.network.init(key, images, method=lambda it, x: own.call(it, x, train))
        leaves = own.moved.outside(trees.flatten(found))
        shape = (leaves[f"{HEAD}kernel"].shape[0], self.num_classes)
        leaves[f"{HEAD}kernel"] = head_init(head, shape)
        leaves[f"{HEAD}bias"] = jnp.zeros(self.num_classes)
        gone = {
            f"{collection}/{norm}/{leaf}"
            for norm in self.folded
            for collection, leaf in (
                ("adapters", "scale"),
                ("batch_stats", "mean"),
                ("batch_stats", "var"),
            )
        }
        kept = {path: leaf for path, leaf in leaves.items() if path not in gone}
        return trees.collections(kept)

    def apply(
        self,
        variables: Mapping[str, Any],
        images: Float[Array, "b h w 3"],
        *,
        train: bool,
        mutable: Any = False,
        rngs: Mapping[str, Array] | None = None,
    ) -> Any:
        """Return the logits (b, k), in float32 or wider, of normalised images.

        With `mutable`, return the changed collections with them. Streams of random numbers that
        are not in `rngs` follow from "dropout". What the network draws itself, it draws anew on
        each device; adapters draw for the batch of all devices.

        Raises:
          ValueError: images that are not (b, h, w, 3), or training of a network with folded norms.
        """
        own = self.backbone
        own.check_sides(images.shape)
        if train and self.folded:
            raise ValueError("this network is folded, for evaluation; train the unfolded one.")
        images = jnp.asarray(images)
        if self.runtime.dtype != jnp.float32:
            images = images.astype(self.runtime.dtype)
        streams = self._streams(rngs or {})
        leaves = own.moved.inside(trees.flatten(variables))
        classifier = {name: leaves.pop(f"params/{own.head}/{name}") for name in ("kernel", "bias")}
        with nn.intercept_methods(self._interceptor(classifier, train)):
            found: Any = own.network.apply(
                trees.unflatten(leaves),
                images,
                mutable=mutable,
                rngs=streams,
                method=lambda it, x: own.call(it, x, train),
            )
        logits, *changed = found if mutable else (found,)
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        return (logits, {"batch_stats": {}, **changed[0]}) if mutable else logits

    def _streams(self, rngs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the network's streams of random numbers, this device's own, and the adapters'."""
        if "dropout" not in rngs:
            return dict(rngs)
        channels, axis = rngs["dropout"], self.runtime.axis_name
        own = jax.random.fold_in(channels, 0 if axis is None else jax.lax.axis_index(axis))
        others = jax.random.fold_in(own, 0)  # "params" is where Linen looks for those not given
        return {"params": others, **rngs, "dropout": own, "channels": channels}

    def _interceptor(self, classifier: Mapping[str, Array] | None, train: bool) -> Interceptor:
        return Interceptor(
            {layer.path: layer for layer in self.carriers},
            self.adapter,
            self.backbone.norm,
            self.folded,
            self.backbone.head,
            classifier,
            train,
            self.runtime,
        )
