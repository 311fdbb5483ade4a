"""The loss."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

MASKED_LOGIT = -1e30  # logit of a padded class; its exp is 0


def mask(logits: Float[Array, "b k"], classes: Any) -> Float[Array, "b k"]:
    """Return the logits of a padded head with all but the first `classes` masked."""
    return jnp.where(jnp.arange(logits.shape[-1]) < classes, logits, MASKED_LOGIT)


def cross_entropy(
    logits: Float[Array, "b k"],
    labels: Int[Array, " b"],
    smoothing: float = 0.0,
    classes: Any = None,
) -> Float[Array, " b"]:
    """Return the softmax cross-entropy of each row, (b,), in nats.

    Args:
      logits: (b, k).
      labels: int (b,), from 0.
      smoothing: label smoothing, in [0, 1).
      classes: how many outputs of a padded head are the domain's own (None: all k); labels are
        smoothed over these only.
    """
    outputs = logits.shape[-1]
    if classes is None:
        classes = outputs
    uniform = jnp.where(jnp.arange(outputs) < classes, 1 / classes, 0).astype(logits.dtype)
    targets = (1 - smoothing) * jnp.eye(outputs, dtype=logits.dtype)[labels] + smoothing * uniform
    return optax.softmax_cross_entropy(logits, targets)
