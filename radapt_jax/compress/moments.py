"""Second moments of what adapters read and of gradients behind them, from images of a domain.

They say which errors of an adapter matter. To second order, the divergence of a network's
predictions from those with a changed adapter α - Δ is ½ tr(G Δᵀ S Δ), with S of what α reads and G
of the gradients at its output, if the two are independent: the Fisher information in Kronecker's
form (Grosse and Martens, ICML 2016).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from radapt_jax.adapters.base import NAME, Adapter, by_convolution, carriers
from radapt_jax.compress.svd import Matrices
from radapt_jax.data.cache import Split
from radapt_jax.evaluation.training_images import BATCH, IMAGES, split_of, training_batches
from radapt_jax.family.family import Family
from radapt_jax.nn import losses
from radapt_jax.nn.filters import Filter
from radapt_jax.utils import trees
from radapt_jax.utils.programs import make_room

FOUND, PROBES = "moments", "probes"  # collections, for as long as moments are taken


@dataclasses.dataclass(frozen=True)
class Moments:
    """Second moments at a domain's adapters, by convolution.

    Args:
      inputs: S = E[x xᵀ], (c, c), uncentred, over images and the pixels x that the adapter reads;
        where a convolution has groups, the mean over these.
      gradients: G = E[Σ g gᵀ], (d, d), over images, with the sum over pixels; g is the gradient of
        an image's loss at the output of the adapted convolution.
    """

    inputs: Matrices
    gradients: Matrices


def moments_of(
    family: Family,
    name: str,
    images: Any,
    labels: Sequence[Any] | None = None,
    *,
    count: int = IMAGES,
    batch_size: int = BATCH,
    seed: int = 0,
) -> Moments:
    """Take the moments at the adapters of one of a family's domains; nothing is changed.

    Args:
      family: that has the domain.
      name: of the domain.
      images: training images of the domain, as `radapt_jax.fit` takes them.
      labels: their labels, for the loss (the empirical Fisher); None: drawn from what the network
        predicts (the Fisher information itself).
      count: how many images are looked at, cropped and mirrored at random as in training.
      batch_size: images that are looked at together.
      seed: of the labels that are drawn.

    Raises:
      KeyError: there is no such domain.
      ValueError: its adapters are no matrices that pixels are multiplied with; convolutions have
        groups of several channels; images or labels that cannot be read; no images, or less than
        one batch.
    """
    split = split_of(family[name].domain, images, labels)
    own = labels is not None
    return moments(
        family, name, split, count=count, batch_size=batch_size, seed=seed, own_labels=own
    )


def moments(
    family: Family,
    name: str,
    split: Split,
    *,
    count: int = IMAGES,
    batch_size: int = BATCH,
    seed: int = 0,
    own_labels: bool = False,
) -> Moments:
    """Take the moments at the adapters of a domain; see `moments_of`.

    Args:
      family, name, count, batch_size, seed: as there.
      split: the images.
      own_labels: take the loss with the images' labels.

    Raises:
      KeyError, ValueError: as there.
    """
    member, variables = family[name], family.variables(name)
    spec = member.spec.served()
    adapters = carriers(trees.flatten(variables["adapters"]))
    sites = [site for site in spec.sites() if site.conv in adapters]
    if grouped := [site.conv for site in sites if site.groups > 1 and site.inputs > 1]:
        raise ValueError(
            f"domain {name!r}: found convolutions in groups of channels, such as {grouped[0]}; "
            "expected one group, or one a channel, since their groups read different moments. "
            "Compress it without moments."
        )
    probes = {
        f"{site.conv}/{NAME}/out": np.zeros((site.outputs,) * 2, np.float32) for site in sites
    }
    make_room()
    model = spec.build(member.domain.num_classes)
    total: Any = None
    for index, (pixels, targets) in enumerate(
        training_batches(member.domain, split, count, batch_size)
    ):
        key = None if own_labels else jax.random.fold_in(jax.random.key(seed), index)
        found = _of_batch(model, variables, trees.unflatten(probes), pixels, targets, key)
        if not sites or len(found[0]) < len(sites):
            raise ValueError(
                f"domain {name!r}: found adapter {member.spec.adapter.kind!r}; expected one whose "
                "matrix is multiplied with pixels (parallel). Compress it without moments."
            )
        wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), found)
        total = wide if total is None else jax.tree.map(np.add, total, wide)
    inputs, gradients = total
    batches = count // batch_size
    return Moments(
        {site.conv: inputs[site.conv] / batches for site in sites},
        {site.conv: gradients[site.conv] / (batches * batch_size) for site in sites},
    )


@functools.partial(jax.jit, static_argnames="model")
def _of_batch(
    model: Any, variables: Any, probes: Any, images: Array, targets: Array, key: Any
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return S of a batch, and the sum of g gᵀ over its images and pixels, by convolution."""

    def loss(probes: Any) -> tuple[Array, Any]:
        with nn.intercept_methods(_watch):
            logits, found = model.apply(
                {**variables, PROBES: probes}, images, train=False, mutable=[FOUND]
            )
        drawn = targets if key is None else jax.random.categorical(key, logits)
        return losses.cross_entropy(logits, drawn).sum(), found.get(FOUND, {})

    gradients, found = jax.grad(loss, has_aux=True)(probes)
    read = by_convolution(trees.flatten(found), "read")
    inputs = {conv: sum(it) / len(it) for conv, it in read.items()}
    return inputs, by_convolution(trees.flatten(gradients), "out")


def _watch(next_fun: Any, args: Any, kwargs: Any, context: Any) -> Any:
    """Note the moments of what an adapter reads, and let a probe take those of its gradients."""
    module = context.module
    if context.method_name != "__call__" or not isinstance(module, Adapter):
        return next_fun(*args, **kwargs)
    x, f = args
    read, y = module.read(x, f), next_fun(*args, **kwargs)
    if read is None or not module.has_variable(PROBES, "out"):
        return y
    module.sow(FOUND, "read", _second(read, f))
    return _probed(y, module.get_variable(PROBES, "out"))


def _second(read: Float[Array, "b h w c"], f: Filter) -> Float[Array, "c_g c_g"]:
    """Return the mean of x xᵀ over pixels, and over groups of channels."""
    vectors = read.reshape(-1, f.geometry.groups, f.kernel.shape[2])
    pixels = vectors.shape[0] * vectors.shape[1]
    return jnp.einsum("pgc,pge->ce", vectors, vectors, precision="highest") / pixels


@jax.custom_vjp
def _probed(y: Float[Array, "b h w d"], probe: Float[Array, "d d"]) -> Array:
    """Return y. The gradient of the probe is not one: it is Σ g gᵀ over images and pixels."""
    return y


def _pull(_: None, g: Array) -> tuple[Array, Array]:
    return g, jnp.einsum("bhwd,bhwe->de", g, g, precision="highest")


_probed.defvjp(lambda y, probe: (y, None), _pull)
