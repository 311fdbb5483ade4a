"""No adapter: the shared convolution as it is."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from flax import linen as nn
from jaxtyping import Array, Float

from radapt_jax.adapters.base import Adapter, Folded, Site, Trained
from radapt_jax.adapters.options import Options
from radapt_jax.nn.filters import Filter


@dataclasses.dataclass(frozen=True)
class NoAdapter(Options):
    """Convolutions stay as they are; norms and head are the domain's."""

    kind: ClassVar[str] = "none"


class PlainConv(Adapter):
    """y = f * x."""

    Options = NoAdapter

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], f: Filter, *, train: bool
    ) -> Float[Array, "b h2 w2 d"]:
        return f(x, train=train)

    @classmethod
    def fold(cls, f: Filter, it: Trained) -> Folded:
        return f.kernel, None

    @classmethod
    def parameters(cls, options: Any, site: Site) -> int:
        return 0

    @classmethod
    def serves(cls, options: Any, conv: str) -> bool:
        return False
