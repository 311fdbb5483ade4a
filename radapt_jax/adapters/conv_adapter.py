"""Conv-Adapters, a bottleneck with an activation beside a convolution (Chen et al., 2022).

y = f * x + scale (γ * relu(β * x + a) + b): β is a convolution of the filter's own size to
w = c / reduction channels, each of which reads a group of inputs of its own, and γ is a 1x1
convolution from w to d channels (arXiv 2208.07463, section 3.2). Because of the activation it
cannot be folded into the filter: an adapted network keeps it at inference. A pixel takes
w (k² c + d) multiply-adds more, and three times that in training: the groups are computed as one
convolution with zeros between them, which is far faster on CPUs than k² c in groups.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from flax import linen as nn
from jaxtyping import Array, Float

from radapt_jax.adapters.base import Folded, Leaf, Site, Trained
from radapt_jax.adapters.dropout import Dropped, WithDropout
from radapt_jax.nn.filters import Filter, without_groups
from radapt_jax.utils.checks import whole


@dataclasses.dataclass(frozen=True)
class ConvAdapter(Dropped):
    """Options of Conv-Adapters.

    Args:
      init: of the 1x1 convolution; the other one starts over its inputs.
      decay: see `Options`; `scale` has none unless it says so.
      dropout: see `Dropped`.
      reduction: c over the bottleneck's channels; the bottleneck has as many as divide c.
    """

    kind: ClassVar[str] = "conv_adapter"
    checks: ClassVar = {**Dropped.checks, "reduction": whole(1)}

    reduction: int = 4


class ConvAdapterAdapter(WithDropout):
    """y = f * x + scale (relu(β * x + a) γ + b).

    The variables are "down" β (k, k, c / w, w), "down_bias" a (w,), "up" γ (w, d), "up_bias" b (d,)
    and "scale" (d,), which starts at 1.
    """

    Options = ConvAdapter
    leaves: ClassVar = {
        "down": Leaf(start="keras_he_normal"),
        "down_bias": Leaf(start="zeros", decays=False),
        "up": Leaf(),
        "up_bias": Leaf(start="zeros", decays=False),
        "scale": Leaf(start="ones", decays=False),
    }
    foldable = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], f: Filter, *, train: bool
    ) -> Float[Array, "b h2 w2 d"]:
        site, options = self.site(f), self.options
        channels, width = x.shape[-1], self.width(options, site)
        shape = (site.size, site.size, channels // width, width)
        kernel = without_groups(self.leaf("down", shape), width)
        geometry = f.geometry._replace(groups=1)
        down = Filter(kernel, self.leaf("down_bias", (width,)), geometry)
        inside = nn.relu(down(self.dropped(x, train), train=train))
        beside = inside @ self.leaf("up", (width, site.outputs))
        beside = beside + self.leaf("up_bias", (site.outputs,))
        return f(x, train=train) + beside * self.leaf("scale", (site.outputs,))

    @classmethod
    def width(cls, options: Any, site: Site) -> int:
        """Return the channels of the bottleneck: the most up to c / reduction that divide c."""
        channels = site.inputs * site.groups
        most = max(channels // options.reduction, 1)
        return next(width for width in range(most, 0, -1) if channels % width == 0)

    @classmethod
    def fold(cls, f: Filter, it: Trained) -> Folded:
        """Raise ValueError: there is no such filter."""
        raise ValueError(
            f"found conv_adapter adapters on {it.conv}, which have an activation inside; expected "
            "a kind that is linear at evaluation. Predict, mix and export them as they are, "
            "without folding."
        )

    @classmethod
    def parameters(cls, options: Any, site: Site) -> int:
        width = cls.width(options, site)
        down = site.size * site.size * site.inputs * site.groups + width
        return down + (width + 2) * site.outputs
