"""Compiled prediction: one domain, or a batch that mixes domains, in one call.

Heads are padded to the family's largest, so that domains of different class counts share a
program; the padding has probability 0.
"""

from __future__ import annotations

import functools
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from radapt_jax.data.augment import normalise
from radapt_jax.domains import Domain
from radapt_jax.metrics import NEVER

RECENT = 8  # networks whose programs are kept though nobody holds them: one may be made again
_PROGRAMS: weakref.WeakKeyDictionary[Any, dict[Any, Any]] = weakref.WeakKeyDictionary()


def pad_head(adapters: Mapping[str, Any], classes: int) -> dict[str, Any]:
    """Return an `adapters` collection with its head padded to `classes` outputs."""
    kernel, bias = adapters["head"]["kernel"], adapters["head"]["bias"]
    more = classes - bias.shape[0]
    head = {
        "kernel": jnp.pad(kernel, ((0, 0), (0, more))),
        "bias": jnp.pad(bias, (0, more), constant_values=NEVER),
    }
    return {**adapters, "head": head}


def statistics(domain: Domain) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and std of a domain as float32 arrays (3,)."""
    return np.array(domain.mean, np.float32), np.array(domain.std, np.float32)


def check_images(images: Any, domains: Iterable[Domain]) -> np.ndarray:
    """Return images as uint8 or float32 (n, h, w, 3).

    Raises:
      ValueError: another rank, channel count or dtype, no pixels, or floats that are not finite or
        that no normalisation of these domains yields.
    """
    try:
        images = np.asarray(images)
    except ValueError as error:
        raise ValueError(
            f"found images that make no array: {error}. Expected one shape for all; "
            "family.preprocess makes it so."
        ) from error
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(
            f"found images of shape {images.shape}; expected (n, height, width, 3). One image "
            "needs a leading axis: image[None]; files go through family.preprocess."
        )
    if 0 in images.shape[1:]:
        raise ValueError(f"found images of shape {images.shape}; expected at least 8 x 8 pixels.")
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
    """Refuse floats that are pixels in [0, 255] still, and warn of those that seem to be in [0, 1].

    Normalised values are at most 1 / std from 0 where the mean is in [0, 1]; twice that is let in.
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
    """Return the softmax of the logits; uint8 images are normalised first."""
    if images.dtype == jnp.uint8:
        images = normalise(images, mean, std)
    return jax.nn.softmax(model.apply(variables, images, train=False))


@functools.lru_cache(maxsize=RECENT)
def _compiled(run: Callable[..., Array], model: Any) -> Callable[..., Array]:
    """Return `run` with a network, compiled once per batch shape and image dtype.

    Its programs are shared by all networks that are equal, and go with them: what XLA compiles
    maps memory, of which a process has only so much.
    """
    programs = _PROGRAMS.setdefault(model, {})
    if run not in programs:  # of a copy, as the network itself would keep itself alive
        programs[run] = jax.jit(functools.partial(run, model.clone()))
    return programs[run]


def predict(model: Any, *data: Any) -> Float[Array, "b k"]:
    """Return `probabilities`, compiled: domains are data, and share a network's programs."""
    return _compiled(probabilities, model)(*data)


def predict_mixed(model: Any, *data: Any) -> Float[Array, "b k"]:
    """Return `mixed_probabilities`, compiled."""
    return _compiled(mixed_probabilities, model)(*data)


def mixed_probabilities(
    model: Any,
    params: Any,
    stacked: Any,
    which: Int[Array, " b"],
    images: Array,
    means: Float[Array, "d 3"],
    stds: Float[Array, "d 3"],
) -> Float[Array, "b k"]:
    """Return probabilities of images that each have a domain of their own.

    The shared convolutions run on the whole batch. Each image's adapters, norms and head are
    gathered from the stacked bank, so that an adapter is a batched matrix product.

    Args:
      model: the network with a padded head.
      params: shared weights.
      stacked: the domains' own collections, every leaf (d, ...).
      which: the domain of each image, 0 to d - 1.
      means, stds: of the domains, for uint8 images.
    """
    own = jax.tree.map(lambda leaf: leaf[which], stacked)

    def one(own: Any, image: Array, mean: Array, std: Array) -> Array:
        variables = {"params": params, **own}
        return probabilities(model, variables, image[None], mean, std)[0]

    return jax.vmap(one)(own, images, means[which], stds[which])


def stack(trees: Sequence[Any]) -> Any:
    """Stack trees of equal structure: every leaf gets a leading axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
