"""Compiled prediction: one domain, or a batch that mixes domains, in one call.

Heads are padded to the family's largest, so that domains of different class counts share a
program; padded classes have probability 0.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from radapt_jax.data.augment import normalise
from radapt_jax.data.domain import Domain
from radapt_jax.nn.losses import MASKED_LOGIT


def pad_head(adapters: Mapping[str, Any], classes: int) -> dict[str, Any]:
    """Return an `adapters` collection with its head padded to `classes` outputs."""
    kernel, bias = adapters["head"]["kernel"], adapters["head"]["bias"]
    more = classes - bias.shape[0]
    head = {
        "kernel": jnp.pad(kernel, ((0, 0), (0, more))),
        "bias": jnp.pad(bias, (0, more), constant_values=MASKED_LOGIT),
    }
    return {**adapters, "head": head}


def statistics(domain: Domain) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and std of a domain as float32 arrays (3,)."""
    return np.array(domain.mean, np.float32), np.array(domain.std, np.float32)


def check_images(images: Any, domains: Iterable[Domain]) -> np.ndarray:
    """Return images as uint8 or float32 (n, h, w, 3).

    Raises:
      ValueError: another rank, channel count or dtype, no pixels, or floats that are not finite or
        too large to be normalised for these domains.
    """
    try:
        images = np.asarray(images)
    except ValueError as error:
        raise ValueError(
            f"found images that make no array: {error}. Expected one shape for all of them; "
            "family.preprocess gives them one."
        ) from error
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(
            f"found images of shape {images.shape}; expected (n, height, width, 3). One image "
            "needs a leading axis: image[None]; files go through family.preprocess."
        )
    if 0 in images.shape[1:]:
        raise ValueError(f"found images of shape {images.shape}; expected at least one pixel.")
    if images.dtype == np.uint8:
        return images
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(
            f"found images of {images.dtype}; expected uint8 in [0, 255], or floats that are "
            "normalised already."
        )
    images = images.astype(np.float32)
    if not np.isfinite(images).all():
        raise ValueError("found images with NaN or infinite values; expected finite ones.")
    _check_normalised(images, domains)
    return images


def _check_normalised(images: np.ndarray, domains: Iterable[Domain]) -> None:
    """Refuse floats that are still pixels in [0, 255], and warn if they seem to be in [0, 1].

    With a mean in [0, 1], normalised values are within 1 / std of 0; twice that is accepted.
    """
    lowest, highest = images.min(initial=0), images.max(initial=0)
    most = max((2 * max(1.0, *it.mean) / min(it.std) for it in domains), default=np.inf)
    if max(-lowest, highest) > most:
        raise ValueError(
            f"found floats from {lowest:g} to {highest:g}; expected normalised ones, which are "
            f"within {most:.3g} of 0 here. Pixels in [0, 255] go in as uint8: "
            "images.astype(np.uint8)."
        )
    if lowest == 0 and 0 < highest <= 1:
        warnings.warn(
            "found floats in [0, 1], which predict takes as normalised. If they are pixels, pass "
            "uint8: (images * 255).round().astype(np.uint8).",
            stacklevel=4,
        )


def probabilities(
    model: Any, variables: Any, images: Array, mean: Any, std: Any
) -> Float[Array, "b k"]:
    """Return the softmax of the logits, (b, k); uint8 images (b, h, w, 3) are normalised first."""
    if images.dtype == jnp.uint8:
        images = normalise(images, mean, std)
    return jax.nn.softmax(model.apply(variables, images, train=False))


# Compiled once per network, batch shape and image dtype: domains are data.
predict = jax.jit(probabilities, static_argnames="model")


@functools.partial(jax.jit, static_argnames="model")
def predict_mixed(
    model: Any,
    params: Any,
    stacked: Any,
    which: Int[Array, " b"],
    images: Array,
    means: Float[Array, "d 3"],
    stds: Float[Array, "d 3"],
) -> Float[Array, "b k"]:
    """Return probabilities (b, k) of images that each have a domain of their own.

    The shared convolutions run on the whole batch. Each image's adapters, norms and head are
    gathered from the stacked bank, so that an adapter is a batched matrix product.

    Args:
      model: the network with a padded head.
      params: shared weights.
      stacked: the domains' own collections, every leaf (d, ...).
      which: the domain of each image, int (b,), 0 to d - 1.
      images: uint8, or normalised floats, (b, h, w, 3).
      means, stds: of the domains, (d, 3), for uint8 images.
    """
    own = jax.tree.map(lambda leaf: leaf[which], stacked)

    def one(own: Any, image: Array, mean: Array, std: Array) -> Array:
        variables = {"params": params, **own}
        return probabilities(model, variables, image[None], mean, std)[0]

    return jax.vmap(one)(own, images, means[which], stds[which])


def predict_all(
    model: Any,
    variables: Any,
    images: np.ndarray,
    domain: Domain,
    batch_size: int,
    program: Callable[..., Any] = predict,
) -> np.ndarray:
    """Return the probabilities (n, k) of one domain for n >= 1 images, batch by batch.

    `program` may compute something else of the same arguments, such as `features.features`.
    """
    mean, std = statistics(domain)
    found = [
        np.asarray(program(model, variables, images[rows], mean, std))[:real]
        for real, rows in in_batches(np.arange(len(images)), batch_size)
    ]
    return np.concatenate(found)


def in_batches(rows: np.ndarray, size: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the number of real rows and the rows of each batch, `size` at a time.

    The last of several batches is padded with its last row, so that they all share a program.
    """
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        missing = size - len(part) if start else 0
        yield len(part), np.pad(part, (0, missing), mode="edge")


def stack(trees: Sequence[Any]) -> Any:
    """Stack trees of equal structure: every leaf gets a leading axis, one entry for each tree."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
