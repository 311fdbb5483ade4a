"""mixup: images that are two images at once (Zhang, Cisse, Dauphin and Lopez-Paz, ICLR 2018)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

APART = 1 << 30  # keeps what is drawn here apart from dropout, which folds in parts from 0 on


class Mixed(NamedTuple):
    """What mixed images are of.

    Args:
      others: label of the second image in each, (b,).
      share: of the first, in [1/2, 1], (b,).
    """

    others: Int[Array, " b"]
    share: Float[Array, " b"]


def mix(
    images: Float[Array, "b h w 3"],
    labels: Int[Array, " b"],
    alpha: float,
    key: Array,
    device: Any = 0,
) -> tuple[Float[Array, "b h w 3"], Mixed]:
    """Return each image mixed with the next one of the batch, and what it is of (section 2).

    The share λ of an image is drawn from Beta(alpha, alpha), for each image anew. The larger of λ
    and 1 - λ is the image's own, so that it keeps its label where only one counts.

    Args:
      images: of one device, normalised.
      labels: of these.
      alpha: above 0; 0.2 mixes most images a little, 1 draws every share alike.
      key: of the step.
      device: which one it is; each draws shares of its own.
    """
    key = jax.random.fold_in(jax.random.fold_in(key, APART), device)
    share = jax.random.beta(key, alpha, alpha, labels.shape)
    share = jnp.maximum(share, 1 - share).astype(images.dtype)
    ours = share[:, None, None, None]
    mixed = ours * images + (1 - ours) * jnp.roll(images, -1, 0)
    return mixed, Mixed(jnp.roll(labels, -1), share)
