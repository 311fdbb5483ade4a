"""The losses."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

LEAST_NORM = 1e-12  # of a Gram matrix; below it, features do not differ between images
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


def divergence(
    logits: Float[Array, "b k"], teacher: Float[Array, "b k"], temperature: float = 1.0
) -> Float[Array, " b"]:
    """Return KL(teacher || network) of each row, (b,), in nats times the squared temperature.

    That factor keeps the size of the gradients (Hinton, Vinyals and Dean, 2015, section 2).

    Args:
      logits: of the network, (b, k).
      teacher: logits of the network to learn from, (b, k).
      temperature: by which both are divided before the softmax; above 0.
    """
    ours, theirs = (jax.nn.log_softmax(it / temperature) for it in (logits, teacher))
    return temperature**2 * optax.losses.kl_divergence_with_log_targets(ours, theirs)


def cka(x: Float[Array, "b c"], y: Float[Array, "b d"]) -> Float[Array, ""]:
    """Return the linear centred kernel alignment of two sets of features, in [0, 1].

    CKA(X, Y) = <K, L> / (|K| |L|), where K = X Xᵀ and L = Y Yᵀ are of features that are centred
    over the batch, and norms are Frobenius' (Kornblith et al., ICML 2019, section 3). It is 1 if
    one set is the other rotated, scaled or shifted. It is 0 if a set does not vary, and far above 0
    for unrelated sets if b is not larger than c and d.

    Args:
      x: features of b images, (b, c).
      y: other features of the same images, (b, d).
    """
    return (_gram(x) * _gram(y)).sum()


def _gram(x: Float[Array, "b c"]) -> Float[Array, "b b"]:
    """Return the Gram matrix of centred features, divided by its norm."""
    x = x - x.mean(0)
    gram = jnp.matmul(x, x.T, precision="highest")
    return gram / jnp.sqrt(jnp.maximum(jnp.square(gram).sum(), LEAST_NORM**2))
