"""No adapter: the shared convolution as it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from flax import linen as nn
from jaxtyping import Array, Float

from radapt_jax.adapters.base import Adapter, Options


@dataclasses.dataclass(frozen=True)
class NoAdapter(Options):
    """Convolutions stay as they are; norms and head are the domain's."""

    kind: ClassVar[str] = "none"


class PlainConv(Adapter):
    """y = f * x."""

    Options = NoAdapter

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c d"], *, train: bool
    ) -> Float[Array, "b h2 w2 d"]:
        return self.filtered(x, kernel, train=train)

    @classmethod
    def fold(cls, kernel: Array, own: Mapping[str, Array], stats: Mapping[str, Array]) -> Any:
        return kernel, None

    @classmethod
    def parameters(cls, inputs: int, outputs: int, options: Any, conv: str) -> int:
        return 0

    @classmethod
    def serves(cls, options: Any, conv: str) -> bool:
        return False
