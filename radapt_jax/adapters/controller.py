"""Controllers, which mix the outputs of the shared filters (Rosenfeld and Tsotsos, 2017).

W' = R W with R of D x D, and a bias (arXiv 1705.04228, "Incremental learning through deep
adaptation"). R is applied to the outputs, so that a step takes no filter gradient: d² multiply-adds
a pixel forward and twice that backward, a ninth of a 3x3 convolution of d to d channels each.

The variable holds R - 1, so that zero is the backbone (the paper's diagonal start), which weight
decay pulls to.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
from flax import linen as nn
from jaxtyping import Array, Float

from radapt_jax.adapters.base import Adapter, Folded, Leaf, Site, Trained
from radapt_jax.adapters.options import Options
from radapt_jax.nn.filters import Filter, grouped_product
from radapt_jax.utils.checks import FLAG


@dataclasses.dataclass(frozen=True)
class Controller(Options):
    """Options of controllers.

    Args:
      init, decay: see `Options`.
      bias: whether the mixed outputs have a bias, which starts at 0.
    """

    kind: ClassVar[str] = "controller"
    checks: ClassVar = {**Options.checks, "bias": FLAG}

    bias: bool = True


class ControllerAdapter(Adapter):
    """y = R (f * x) + b with R of (d, d); "kernel" is R - 1.

    Where the convolution has groups, R mixes the outputs of a group only: beside a depthwise
    convolution it is one number a channel.
    """

    Options = Controller
    leaves: ClassVar = {"kernel": Leaf(), "bias": Leaf(start="zeros")}

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], f: Filter, *, train: bool
    ) -> Float[Array, "b h2 w2 d"]:
        u = f(x, train=train)
        outputs, groups = u.shape[-1], f.geometry.groups
        mixing = self.leaf("kernel", (outputs // groups, outputs))
        y = u + grouped_product(u, mixing, groups)
        return y + self.leaf("bias", (outputs,)) if self.options.bias else y

    @classmethod
    def fold(cls, f: Filter, it: Trained) -> Folded:
        """R (W * x + a) + b = (R W) * x + a + (R - 1) a + b, with a the convolution's own bias."""
        own, groups = it.own, f.geometry.groups
        constant = own.get("bias")
        with jax.default_matmul_precision("highest"):
            kernel = f.kernel + grouped_product(f.kernel, own["kernel"], groups)
            if f.bias is not None:
                moved = grouped_product(f.bias, own["kernel"], groups)
                constant = moved if constant is None else constant + moved
        return kernel, constant

    @classmethod
    def parameters(cls, options: Any, site: Site) -> int:
        biases = site.outputs if options.bias else 0
        return site.outputs * site.outputs // site.groups + biases
