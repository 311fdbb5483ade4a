"""The loss."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

MASKED_LOGIT = -1e30  # logit of a class that is padding; exp of it is 0


def mask(logits: Float[Array, "b k"], classes: Any) -> Float[Array, "b k"]:
    """Return the logits of a padded head, where all but the first `classes` have no chance."""
    return jnp.where(jnp.arange(logits.shape[-1]) < classes, logits, MASKED_LOGIT)


def cross_entropy(
    logits: Float[Array, "b k"],
    labels: Int[Array, " b"],
    smoothing: float = 0.0,
    classes: Any = None,
) -> Float[Array, " b"]:
    """Softmax cross-entropy of each row, in nats, with label smoothing in [0, 1).

    Args:
      classes: of a padded head, how many are the domain's own; labels are smoothed over those.
    """
    outputs = logits.shape[-1]
    if classes is None:
        classes = outputs
    uniform = jnp.where(jnp.arange(outputs) < classes, 1 / classes, 0).astype(logits.dtype)
    targets = (1 - smoothing) * jnp.eye(outputs, dtype=logits.dtype)[labels] + smoothing * uniform
    return optax.softmax_cross_entropy(logits, targets)
