"""The contract of an adapter kind: all that other packages may ask of one.

A kind is one subclass of `Adapter`, with its equation in `__call__` and a dataclass of its options.
Add it to `registry.KINDS`, and it is trained, counted, saved, folded and served like the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from radapt_jax.adapters.options import Options
from radapt_jax.nn.filters import Filter
from radapt_jax.nn.layers import domain_variable
from radapt_jax.nn.norm import NormRule
from radapt_jax.nn.starts import STARTS, Start

# In bfloat16 a small α would be rounded away in f + α or I + α: there it is applied apart.
EXACT_DTYPES = (jnp.float32, jnp.float64)
NAME = "adapter"  # of the submodule: an adapter's variables are at <convolution>/adapter/<leaf>


def is_adapters(path: str) -> bool:
    """Tell whether a variable belongs to an adapter, from its path."""
    return f"/{NAME}/" in path


def leaf_of(path: str) -> str:
    """Return the path of a variable inside its adapter; "": it belongs to none."""
    return path.partition(f"/{NAME}/")[2]


def carriers(paths: Iterable[str]) -> set[str]:
    """Return the paths of the convolutions whose adapters have some of the variables."""
    return {path.partition(f"/{NAME}/")[0] for path in paths if is_adapters(path)}


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
    say. Variables of a submodule `norm` start as those of the network's norms do. One that does not
    `decay` has no weight decay, unless the options give it one. Of one that is `binary`, a trained
    domain keeps one bit a value; see `Adapter.bits`.
    """

    label: str = "adapters"
    shared: bool = False
    start: str | None = None
    decays: bool = True
    binary: bool = False


class Site(NamedTuple):
    """A convolution that carries an adapter.

    Args:
      conv: its path.
      size: side of its filter, in pixels.
      inputs: channels that one output reads; of one group if it has groups.
      outputs: channels.
      groups: of the convolution.
    """

    conv: str
    size: int
    inputs: int
    outputs: int
    groups: int = 1

    @classmethod
    def of(cls, conv: str, f: Filter) -> Site:
        """Return the site of a convolution, from its path and its filter."""
        size, _, inputs, outputs = f.kernel.shape
        return cls(conv, size, inputs, outputs, f.geometry.groups)


class Trained(NamedTuple):
    """The adapter of one convolution, as it is at evaluation.

    Args:
      own: its variables by path inside it, shared ones too.
      stats: its running statistics.
      options: of the kind.
      norm: the network's rule for norms.
      conv: path of the convolution.
    """

    own: Mapping[str, Array]
    stats: Mapping[str, Array]
    options: Any
    norm: NormRule
    conv: str


Folded = tuple[Float[Array, "k k c d"], Float[Array, " d"] | None]


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

    Class attributes:
      leaves: the kind's variables by path inside the adapter, statistics apart.
      filters_apart: each domain has a filter of its own, so that a batch of several domains is
        computed domain by domain.
      foldable: the adapted convolution is a convolution at evaluation.
      factors: the leaves β (rows, r) and γᵀ (r, d) of a kind whose adapters are products of two.
      compresses: the kind whose adapters such factors can stand for.
    """

    position: int
    options: Any
    norm: NormRule
    runtime: Runtime

    Options: ClassVar[type[Options]]
    leaves: ClassVar[Mapping[str, Leaf]] = {}
    filters_apart: ClassVar[bool] = False
    foldable: ClassVar[bool] = True
    factors: ClassVar[tuple[str, str] | None] = None
    compresses: ClassVar[str | None] = None

    def __call__(
        self, x: Float[Array, "b h w c"], f: Filter, *, train: bool
    ) -> Float[Array, "b h2 w2 d"]:
        raise NotImplementedError

    @classmethod
    def fold(cls, f: Filter, it: Trained) -> Folded:
        """Return the kernel of the adapted convolution at evaluation, and a constant to be added.

        Args:
          f: the shared filter; its bias, if it has one, stays.
          it: the adapter.
        """
        raise NotImplementedError

    @classmethod
    def parameters(cls, options: Any, site: Site) -> int:
        """Return how many parameters a convolution's adapter has that are the domain's own.

        32 bits count as one parameter, as in the papers.
        """
        raise NotImplementedError

    @classmethod
    def matrix(cls, own: Mapping[str, Array], options: Any) -> Float[Array, "rows d"] | None:
        """Return what a low-rank product can stand for; None: there is no such matrix.

        Args:
          own: the adapter's variables by path inside it.
          options: of the kind.
        """
        return None

    @classmethod
    def read(cls, x: Array, f: Filter) -> Float[Array, "b h2 w2 rows"] | None:
        """Return what the matrix of `matrix` is multiplied with; None: it is not with pixels.

        Args:
          x: the input of the convolution, (b, h, w, c).
          f: its filter.
        """
        return None

    @classmethod
    def serves(cls, options: Any, conv: str) -> bool:
        """Tell whether a convolution gets an adapter; where not, it stays as it is."""
        return True

    @classmethod
    def settled(cls, options: Any, sites: Callable[[], Sequence[Site]]) -> Any:
        """Return options in which nothing depends on other convolutions than an adapter's own.

        Args:
          options: of the kind.
          sites: finds all convolutions that carry an adapter.

        Raises:
          ValueError: a variable is named that the kind does not have, or one that all domains
            share is given a decay, which would train it for one of them.
        """
        if unknown := sorted(set(options.decay) - set(cls.leaves)):
            raise ValueError(
                f"{options.kind} adapters: found decay of {unknown}; expected some of "
                f"{sorted(cls.leaves)}."
            )
        given = {leaf: rate for leaf, rate in options.decay.items() if rate is not None}
        if shared := sorted(leaf for leaf in given if cls.leaves[leaf].shared):
            raise ValueError(
                f"{options.kind} adapters: found decay {given}; expected none for {shared}, which "
                "domains share: trained for one of them, the others' adapters would not fit it. "
                "Leave it out."
            )
        return options

    @classmethod
    def bits(cls, leaf: str, value: Array, options: Any) -> Array:
        """Return the bits, False and True, that a domain keeps of a variable that is binary."""
        raise NotImplementedError

    @classmethod
    def shares(cls) -> bool:
        """Tell whether domains share some of the adapter's variables."""
        return any(leaf.shared for leaf in cls.leaves.values())

    @classmethod
    def start(cls, leaf: str, options: Any) -> Start:
        """Return how a variable starts."""
        return STARTS[cls.leaves[leaf].start or options.init]

    def leaf(self, name: str, shape: tuple[int, ...], dtype: Any = None) -> Array:
        """Declare one of `leaves` in its collection; return its value.

        Args:
          name: of the leaf.
          shape: of the variable.
          dtype: of the value; default: `runtime.dtype`.
        """
        dtype = self.runtime.dtype if dtype is None else dtype
        init = self.start(name, self.options).initializer
        if self.leaves[name].shared:
            return self.param(name, init, shape, jnp.float32).astype(dtype)
        return domain_variable(self, "adapters", name, init, shape).value.astype(dtype)

    @property
    def conv(self) -> str:
        """Path of the convolution that carries this adapter."""
        return "/".join(self.path[:-1])

    def site(self, f: Filter) -> Site:
        """Return where this adapter is, from the filter of its convolution."""
        return Site.of(self.conv, f)
