"""Statistics of a domain's norms taken anew: the means of the batch statistics of some images.

Whoever changes filters or adapters without training leaves running statistics behind that describe
other activations. No gradients are taken here, and nothing else is changed.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from radapt_jax.data.cache import Split
from radapt_jax.data.domain import Domain
from radapt_jax.evaluation.training_images import BATCH, IMAGES, split_of, training_batches
from radapt_jax.family.family import Family
from radapt_jax.family.member import Member
from radapt_jax.family.rounding import Rounding
from radapt_jax.models.spec import ModelSpec
from radapt_jax.utils import trees
from radapt_jax.utils.programs import make_room
from radapt_jax.utils.trees import Variables


def renew_statistics(
    family: Family, name: str, images: Any, *, count: int = IMAGES, batch_size: int = BATCH
) -> None:
    """Take the norm statistics of one of a family's domains anew.

    The domain is replaced; others, and the shared weights, stay as they are.

    Args:
      family: that has the domain.
      name: of the domain.
      images: training images of the domain, as `radapt_jax.fit` takes them.
      count: how many are looked at, cropped and mirrored at random as in training; each is seen
        again where there are fewer.
      batch_size: images in a batch, as many as in training if that is known.

    Raises:
      KeyError: there is no such domain.
      ValueError: images that cannot be read, no images, or less than one batch.
    """
    split = split_of(family[name].domain, images)
    family.add(name, renewed(family, name, split, count=count, batch_size=batch_size))


def renewed(
    family: Family,
    name: str,
    split: Split,
    *,
    count: int = IMAGES,
    batch_size: int = BATCH,
    rounding: Rounding | None = None,
) -> Member:
    """Return one of a family's domains with its norm statistics taken anew; see `renew_statistics`.

    Args:
      family, name, count, batch_size: as there.
      split: the training images.
      rounding: take the statistics that norms have where the domain is rounded; its adapters stay
        as they are. None: as they are.

    Raises:
      KeyError, ValueError: as there.
    """
    member = family[name]
    if not trees.flatten(member.variables["batch_stats"]):
        return member
    variables = family.variables(name)
    if rounding is not None:
        variables |= member.rounded(rounding).variables
    stats = batch_statistics(
        member.spec, member.domain, variables, split, count=count, batch_size=batch_size
    )
    changed = member.changed(batch_stats=stats)
    return dataclasses.replace(changed, results={})  # which were those of the old ones


def batch_statistics(
    spec: ModelSpec,
    domain: Domain,
    variables: Variables,
    split: Split,
    *,
    count: int = IMAGES,
    batch_size: int = BATCH,
) -> dict[str, Any]:
    """Return the mean statistics of some training batches, as the collection `batch_stats`.

    Args:
      spec: the network.
      domain, split, count, batch_size: see `training_images.training_batches`.
      variables: `params`, `adapters` and `batch_stats`.

    Raises:
      ValueError: no images, or less than one batch.
    """
    make_room()
    model = spec.served().build(domain.num_classes)
    total: dict[str, Any] = {}
    old = trees.flatten(variables["batch_stats"])
    nothing = dict.fromkeys(old, np.float32(0))
    for images, _ in training_batches(domain, split, count, batch_size):
        found = _after(model, variables, images, nothing)
        total = {path: total.get(path, 0) + it for path, it in found.items()}
    # A step leaves a share of the old statistics. It is told from others as large as the new ones.
    sizes = {path: _size(it) for path, it in found.items()}
    left = _after(model, variables, images, sizes)
    shares = {path: (it - found[path]) / sizes[path] for path, it in left.items()}
    new = {
        path: _mean(total[path] / (count // batch_size), shares[path], leaf)
        for path, leaf in old.items()
    }
    return trees.unflatten(new)


def _size(found: np.ndarray) -> np.float32:
    """Return a power of two that is not below any value; at least 1."""
    return np.float32(np.exp2(np.ceil(np.log2(np.abs(found).max(initial=1)))))


def _after(
    model: Any, variables: Any, images: Any, starts: Mapping[str, np.float32]
) -> dict[str, np.ndarray]:
    """Return the statistics after one batch, in float64, from where each was before."""
    found = _step(model, variables, images, trees.unflatten(starts))
    return {path: np.asarray(it, np.float64) for path, it in trees.flatten(found).items()}


@functools.partial(jax.jit, static_argnames="model")
def _step(model: Any, variables: Any, images: Any, starts: Any) -> Any:
    stats = jax.tree.map(jnp.full_like, variables["batch_stats"], starts)
    at = {**variables, "batch_stats": stats}
    _, found = model.apply(
        at, images, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(0)}
    )
    return found["batch_stats"]


def _mean(after: np.ndarray, share: np.ndarray, old: Any) -> np.ndarray:
    """Return the batch statistic of which a step kept all but `share`; the old one if none."""
    moved = np.where(share < 1, after / np.where(share < 1, 1 - share, 1), old)
    return moved.astype(old.dtype)
