"""Compiled prediction: one domain, or a batch that mixes domains, in one call.

Heads are padded to the family's largest, so that domains of different class counts share a
program; padded classes have probability 0.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from radapt_jax.data.augment import normalise
from radapt_jax.data.domain import Domain
from radapt_jax.family.bank import Bank
from radapt_jax.nn.losses import MASKED_LOGIT
from radapt_jax.utils.programs import make_room


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
    model: Any, variables: Any, images: np.ndarray, domain: Domain, batch_size: int
) -> np.ndarray:
    """Return the probabilities (n, k) of one domain for n >= 1 images, batch by batch."""
    mean, std = statistics(domain)
    found = [
        np.asarray(predict(model, variables, images[rows], mean, std))[:real]
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


class Key(NamedTuple):
    """What a cached value was computed from: versions of domains, and the width of their heads."""

    versions: tuple[int, ...]
    classes: int
    stacked: bool


class Predictor:
    """Predicts with the domains of a bank, and caches their padded heads and stacked variables.

    Args:
      params: the shared weights.
      bank: the domains.
    """

    def __init__(self, params: Mapping[str, Any], bank: Bank) -> None:
        self._params, self._bank = params, bank
        self._made: dict[Key, Any] = {}

    def _kept(self, key: Key, make: Callable[[], Any]) -> Any:
        """Return a cached value, computed once for the versions of its domains; drop stale ones."""
        held = self._bank.versions()
        self._made = {old: it for old, it in self._made.items() if held.issuperset(old.versions)}
        if key not in self._made:
            make_room()
            self._made[key] = make()
        return self._made[key]

    def one(self, images: np.ndarray, name: str, batch_size: int) -> np.ndarray:
        """Return the class probabilities (n, classes) of one domain, for at least one image."""
        facts = self._bank[name].domain
        model, variables = self._padded(name)
        found = predict_all(model, variables, images, facts, batch_size)
        return found[:, : facts.num_classes]

    def mixed(self, images: np.ndarray, names: Sequence[str], batch_size: int) -> np.ndarray:
        """Return class probabilities (n, largest class count); `names` has a domain per image."""
        classes = max((self._bank.classes(name) for name in set(names)), default=0)
        found = np.zeros((len(images), classes), np.float32)
        for group in self._groups(set(names)):
            rows = np.flatnonzero([name in group for name in names])
            size = len(rows) if len(rows) == len(images) else min(_few(len(rows)), batch_size)
            padded = np.pad(rows, (0, max(size - len(rows), 0)), mode="edge")
            model, params, bank, means, stds = self._stacked(group)
            for real, part in in_batches(padded, batch_size):
                which = np.array([group.index(names[int(row)]) for row in part])
                out = predict_mixed(model, params, bank, which, images[part], means, stds)
                found[part[:real]] = np.asarray(out)[:real, :classes]
        return found

    def _padded(self, name: str) -> tuple[Any, dict[str, Any]]:
        """Return the network and the variables of a domain, with its head padded."""
        classes = self._head_width()

        def make() -> tuple[Any, dict[str, Any]]:
            variables = {"params": self._params, **self._bank.variables(name)}
            variables["adapters"] = pad_head(variables["adapters"], classes)
            return self._bank[name].spec.served().build(classes), variables

        return self._kept(Key((self._bank.version(name),), classes, stacked=False), make)

    def _head_width(self) -> int:
        return max(self._bank.classes(name) for name in self._bank.names)

    def _groups(self, wanted: set[str]) -> list[tuple[str, ...]]:
        """Group the domains that can share a program; return the groups with a wanted domain.

        If domains are read on use, groups hold only wanted domains, and no more of them than fit
        in memory.
        """
        groups: dict[Any, list[str]] = {}
        limit = self._bank.at_most
        for name in sorted(self._bank.names if limit is None else wanted):
            member = self._bank[name]
            own = name if member.has_own_weights else ""
            groups.setdefault((member.spec.served(), own), []).append(name)
        found = [tuple(group) for group in groups.values() if wanted & set(group)]
        if limit is None:
            return found
        return [group[at : at + limit] for group in found for at in range(0, len(group), limit)]

    def _stacked(self, group: tuple[str, ...]) -> tuple[Any, ...]:
        """Return network, shared weights, stacked bank, means and stds of a group of domains."""
        names, classes = list(group), self._head_width()
        versions = tuple(self._bank.version(name) for name in group)
        key = Key(versions, classes, stacked=True)
        if self._bank.at_most is not None:  # groups change: use few sizes, and keep only one
            names += [group[-1]] * (_few(len(group)) - len(group))
            self._made = {
                old: it for old, it in self._made.items() if old == key or not old.stacked
            }

        def make() -> tuple[Any, ...]:
            variables = [{"params": self._params, **self._bank.variables(name)} for name in names]
            bank = [
                {
                    "adapters": pad_head(own["adapters"], classes),
                    "batch_stats": own["batch_stats"],
                }
                for own in variables
            ]
            facts = [statistics(self._bank[name].domain) for name in names]
            means, stds = (np.stack(them) for them in zip(*facts, strict=True))
            model = self._bank[group[0]].spec.served().build(classes)
            return model, variables[0]["params"], stack(bank), means, stds

        return self._kept(key, make)


def _few(count: int) -> int:
    """Return the next power of two, so that few sizes are compiled."""
    return 1 << (count - 1).bit_length()
