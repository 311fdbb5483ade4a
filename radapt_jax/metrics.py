"""The loss."""

from __future__ import annotations

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int


def cross_entropy(
    logits: Float[Array, "b k"], labels: Int[Array, " b"], smoothing: float = 0.0
) -> Float[Array, " b"]:
    """Softmax cross-entropy of each row, in nats, with label smoothing in [0, 1)."""
    targets = optax.smooth_labels(jnp.eye(logits.shape[-1], dtype=logits.dtype)[labels], smoothing)
    return optax.softmax_cross_entropy(logits, targets)
