"""The contract of an adapter kind: all that other packages may ask of one.

A kind is one subclass of `Adapter`, with its equation in `__call__` and a dataclass of its options.
Add it to `registry.KINDS`, and it is trained, counted, saved, folded and served like the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from radapt_jax.nn.filters import Filter
from radapt_jax.nn.layers import domain_variable
from radapt_jax.nn.norm import NormRule
from radapt_jax.nn.starts import STARTS
from radapt_jax.utils.checks import Kind, check_all, one_of

NAME = "adapter"  # of the submodule: an adapter's variables are at <convolution>/adapter/<leaf>
INIT = one_of("zeros", "he_normal", "keras_he_normal")


def is_adapters(path: str) -> bool:
    """Tell whether a variable belongs to an adapter, from its path."""
    return f"/{NAME}/" in path


def of_adapter(leaves: Mapping[str, Any], conv: str) -> dict[str, Any]:
    """Return the variables of one convolution's adapter, by their paths inside it."""
    start = f"{conv}/{NAME}/"
    return {path.removeprefix(start): it for path, it in leaves.items() if path.startswith(start)}


def by_convolution(leaves: Mapping[str, Any], leaf: str) -> dict[str, Any]:
    """Return one variable of all adapters, by the paths of their convolutions."""
    end = f"/{NAME}/{leaf}"
    return {path.removesuffix(end): it for path, it in leaves.items() if path.endswith(end)}


class Leaf(NamedTuple):
    """One variable of an adapter.

    `label` is what it is trained as: "adapters", "norms" or "filters". `shared` puts it into
    `params`: one for all domains. `start` is a name in `nn.starts.STARTS`; None: as the options
    say. Variables of a submodule `norm` start as those of the network's norms do.
    """

    label: str = "adapters"
    shared: bool = False
    start: str | None = None


@dataclasses.dataclass(frozen=True)
class Options:
    """What can be chosen of a kind; subclasses add their own.

    Args:
      init: "zeros" (the adapted network starts as the backbone), "he_normal" (as in the original
        code) or "keras_he_normal" (as Keras draws it: over the inputs, and cut off).

    Raises:
      ValueError: a value of the wrong kind or outside its range.
    """

    kind: ClassVar[str]  # its name in `registry.KINDS`
    checks: ClassVar[Mapping[str, Kind]] = {"init": INIT}
    training_only: ClassVar[tuple[str, ...]] = ("init",)

    init: str = "zeros"

    def __post_init__(self) -> None:
        check_all(vars(self), self.checks, f"{self.kind} adapters: ")

    def served(self) -> Options:
        """Return these options with those that matter in training only at their defaults."""
        plain: dict[str, Any] = {it.name: it.default for it in dataclasses.fields(self)}
        return dataclasses.replace(self, **{name: plain[name] for name in self.training_only})

    def chosen(self) -> dict[str, Any]:
        """Return the options by name."""
        return {it.name: getattr(self, it.name) for it in dataclasses.fields(self)}

    def to_json(self) -> dict[str, Any]:
        """Return the kind and the options as JSON values; see `registry.options_from_json`."""
        plain = {
            name: dict(it) if isinstance(it, Mapping) else it for name, it in self.chosen().items()
        }
        return {"kind": self.kind, **plain}


@dataclasses.dataclass(frozen=True)
class Runtime:
    """How a network is computed, which changes none of its variables.

    Args:
      dtype: of the computation; variables, statistics and logits stay in float32 or wider.
      axis_name: the mapped axis over which training splits a batch, if any.
      sync_norm: take batch statistics over all devices of `axis_name`.
      fold: compute adapters in training through the folded filter, where that is exact; off where
        domains are mapped over, since each would need a filter of its own.

    Raises:
      ValueError: `sync_norm` without `axis_name`.
    """

    dtype: Any = jnp.float32
    axis_name: str | None = None
    sync_norm: bool = False
    fold: bool = True

    def __post_init__(self) -> None:
        if self.sync_norm and self.axis_name is None:
            raise ValueError("sync_norm needs axis_name, the mapped axis to synchronise over.")

    @property
    def norm_axis(self) -> str | None:
        return self.axis_name if self.sync_norm else None


def product(a: Array, b: Array) -> Array:
    """Return a matrix product in full float32; the default is shorter on GPUs and TPUs."""
    return jnp.matmul(a, b, precision="highest")


class Adapter(nn.Module):
    """The adapter of one shared convolution.

    `__call__(x, f, train=...)` takes the input of the convolution, (b, h, w, c), and its filter,
    of c to d channels, and returns the adapted output, (b, h2, w2, d).

    Args:
      position: of the convolution in its block, from 0.
      options: of the kind.
      norm: the network's rule for norms, for kinds that have one inside.
      runtime: how it is computed.
    """

    position: int
    options: Any
    norm: NormRule
    runtime: Runtime

    Options: ClassVar[type[Options]]
    leaves: ClassVar[Mapping[str, Leaf]] = {}  # by path inside the adapter, statistics apart
    dense: ClassVar[str | None] = None  # the leaf that is α itself, (c, d), and can be factorised
    factors: ClassVar[tuple[str, str] | None] = (
        None  # the leaves β (c, r) and γᵀ (r, d) of α = β γᵀ
    )

    def __call__(
        self, x: Float[Array, "b h w c"], f: Filter, *, train: bool
    ) -> Float[Array, "b h2 w2 d"]:
        raise NotImplementedError

    @classmethod
    def fold(
        cls, f: Filter, own: Mapping[str, Array], stats: Mapping[str, Array], norm: NormRule
    ) -> tuple[Float[Array, "k k c d"], Float[Array, " d"] | None]:
        """Return the kernel of the adapted convolution at evaluation, and a constant to be added.

        Args:
          f: the shared filter; its bias, if it has one, stays.
          own: the adapter's variables by path inside it, shared ones too.
          stats: its running statistics.
          norm: the network's rule for norms.
        """
        raise NotImplementedError

    @classmethod
    def parameters(cls, inputs: int, outputs: int, options: Any, conv: str, groups: int = 1) -> int:
        """Return how many parameters a convolution's adapter has that are the domain's own.

        Args:
          inputs: of the convolution, of one group if it has groups.
          outputs: of the convolution.
          options: of the kind.
          conv: path of the convolution.
          groups: of the convolution.
        """
        raise NotImplementedError

    @classmethod
    def serves(cls, options: Any, conv: str) -> bool:
        """Tell whether a convolution gets an adapter; where not, it stays as it is."""
        return True

    @classmethod
    def shares(cls) -> bool:
        """Tell whether domains share some of the adapter's variables."""
        return any(leaf.shared for leaf in cls.leaves.values())

    @classmethod
    def start(cls, leaf: str, options: Any) -> str:
        """Return how a variable starts, as a name in `nn.starts.STARTS`."""
        return cls.leaves[leaf].start or options.init

    def leaf(self, name: str, shape: tuple[int, ...]) -> Array:
        """Declare one of `leaves` in its collection; return its value in `runtime.dtype`."""
        init = STARTS[self.start(name, self.options)].initializer
        if self.leaves[name].shared:
            return self.param(name, init, shape, jnp.float32).astype(self.runtime.dtype)
        variable = domain_variable(self, "adapters", name, init, shape)
        return variable.value.astype(self.runtime.dtype)
