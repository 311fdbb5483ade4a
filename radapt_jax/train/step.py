"""The state of training, and one optimiser step on it as a pure function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jaxtyping import Array, Float, Int

from radapt_jax.data.mixing import Mixed
from radapt_jax.nn import losses
from radapt_jax.nn.layers import classified
from radapt_jax.train.optim import FROZEN
from radapt_jax.utils import trees
from radapt_jax.utils.distributed import replicate
from radapt_jax.utils.trees import Variables


class Lesson(NamedTuple):
    """What a teacher says of a batch, and how it is learnt.

    The loss is ½ cross-entropy + T² KL(teacher || network), with both softmaxes at temperature T
    (Hinton, Vinyals and Dean, 2015, section 2).

    Args:
      images: as the teacher sees them, (b, h, w, 3).
      answer: gives the teacher's logits for some of these images, (b, k).
      temperature: T, above 0.
    """

    images: Float[Array, "b h w 3"]
    answer: Callable[[Array], Array]
    temperature: float


class TrainState(struct.PyTreeNode):
    """All that training changes: the step, the three collections and the optimiser's state."""

    step: Any  # int32 ()
    params: Any
    adapters: Any
    batch_stats: Any
    opt_state: Any

    @classmethod
    def on_host(
        cls, variables: Mapping[str, Any], optimizer: optax.GradientTransformation
    ) -> TrainState:
        """Return the state at step 0, in NumPy, from copies of `variables`.

        The steps donate their state; an array that came to the device without a copy would be
        deleted under its owner's hands.
        """
        own = trees.to_numpy(variables)
        weights = {"params": own["params"], "adapters": own["adapters"]}
        opt_state = jax.eval_shape(optimizer.init, weights)
        zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), opt_state)
        return cls(step=np.zeros((), np.int32), **own, opt_state=zeros)

    @classmethod
    def create(
        cls,
        variables: Mapping[str, Any],
        optimizer: optax.GradientTransformation,
        devices: Sequence[jax.Device],
    ) -> TrainState:
        """Return the state at step 0 on all devices, from copies of `variables`."""
        return replicate(cls.on_host(variables, optimizer), devices)

    @property
    def weights(self) -> dict[str, Any]:
        return {"params": self.params, "adapters": self.adapters}

    @property
    def variables(self) -> dict[str, Any]:
        return {**self.weights, "batch_stats": self.batch_stats}


class Head:
    """What a network is, once its features are known."""

    @staticmethod
    def apply(variables: Variables, features: Array, **_: Any) -> tuple[Array, Variables]:
        head = variables["adapters"]["head"]
        logits = classified(features, head["kernel"], head["bias"])
        return logits, {"batch_stats": variables["batch_stats"]}


def update(
    model: Any,
    optimizer: optax.GradientTransformation,
    labels: Mapping[str, Any],
    state: TrainState,
    images: Float[Array, "b h w 3"],
    targets: Int[Array, " b"],
    *,
    key: Array,
    smoothing: float = 0.0,
    axis_name: str | None = None,
    parts: int = 1,
    classes: Array | None = None,
    seen: Callable[[dict[str, Array]], dict[str, Array]] = dict,
    lesson: Lesson | None = None,
    mixed: Mixed | None = None,
) -> tuple[TrainState, dict[str, Array]]:
    """Take one optimiser step on normalised images; the body of the compiled training steps.

    Gradients are taken with respect to the trained variables alone, so the gradients of frozen
    filters are never computed, and frozen variables come back untouched, bit for bit.

    Args:
      model, optimizer, labels: the network; what trains it; which variables are frozen.
      state: before the step.
      images, targets: the batch, or this device's share of it.
      key: for dropout.
      smoothing: of labels, in [0, 1).
      axis_name: the mapped axis over which the batch is split, if any.
      parts: b is computed in so many parts, one after another, and their gradients are averaged:
        less memory. Each part has batch statistics of its own.
      classes: how many of the head's outputs are the domain's, where it is padded; default: all.
      seen: gives the weights by path that the network is computed with; see `through`.
      lesson: what is learnt from a teacher, if there is one.
      mixed: what the images are of beside `targets`, if they are mixed; "top1" is of `targets`.

    Returns:
      The state after the step, and "loss" (mean, nats, smoothed; NaN if a gradient is not finite)
      and "top1" (in [0, 1]).
    """
    named = trees.flatten(labels)
    trained, frozen = trees.split(state.weights, lambda path: named[path] != FROZEN)

    def loss_of(
        trained: dict[str, Array], batch_stats: Any, fed: Mapping[str, Array], key: Array
    ) -> tuple[Array, tuple[dict[str, Array], Any]]:
        weights = trees.unflatten(seen({**trained, **frozen}))
        logits, changed = model.apply(
            {**weights, "batch_stats": batch_stats},
            fed["images"],
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        if classes is not None:
            logits = losses.mask(logits, classes)
        loss = losses.cross_entropy(logits, fed["targets"], smoothing, classes)
        if mixed is not None:
            other = losses.cross_entropy(logits, fed["others"], smoothing, classes)
            loss = fed["share"] * loss + (1 - fed["share"]) * other
        loss = loss.mean()
        if lesson is not None:
            known = lesson.answer(fed["shown"])
            loss = loss / 2 + losses.divergence(logits, known, lesson.temperature).mean()
        top1 = (logits.argmax(-1) == fed["targets"]).mean()
        return loss, ({"loss": loss, "top1": top1}, changed["batch_stats"])

    fed = {"images": images, "targets": targets, **(mixed._asdict() if mixed else {})}
    if lesson is not None:
        fed["shown"] = lesson.images
    grads, batch_stats, measured = gradients(loss_of, trained, state.batch_stats, fed, key, parts)
    found = (grads, batch_stats, measured)
    return stepped(state, optimizer, trained, frozen, found, axis_name)


def gradients(
    loss_of: Callable[..., tuple[Array, tuple[dict[str, Array], Any]]],
    trained: Mapping[str, Array],
    batch_stats: Any,
    fed: Mapping[str, Array],
    key: Array,
    parts: int = 1,
) -> tuple[dict[str, Array], Any, dict[str, Array]]:
    """Return gradients, batch statistics and measurements of a batch, computed part by part.

    Args:
      loss_of: `loss_of(trained, batch_stats, fed, key) -> (loss, (measured, batch_stats))`.
      trained: variables by path.
      batch_stats: before the batch.
      fed: arrays of the batch, each with b rows.
      key: for dropout.
      parts: of b / parts rows; their gradients and measurements are averaged.
    """
    total = None
    size = len(next(iter(fed.values()))) // parts
    for part in range(parts):
        rows = slice(part * size, (part + 1) * size)
        now = {name: array[rows] for name, array in fed.items()}
        if total is not None:  # a part is computed when the one before it is done with
            now, total = jax.lax.optimization_barrier((now, total))
        (_, (measured, batch_stats)), grads = jax.value_and_grad(loss_of, has_aux=True)(
            trained, batch_stats, now, jax.random.fold_in(key, part)
        )
        found = (grads, measured)
        total = found if total is None else jax.tree.map(jnp.add, total, found)
    grads, measured = jax.tree.map(lambda leaf: leaf / parts, total)
    return grads, batch_stats, measured


def stepped(
    state: Any,
    optimizer: optax.GradientTransformation,
    trained: Mapping[str, Array],
    frozen: Mapping[str, Array],
    found: tuple[dict[str, Array], Any, dict[str, Array]],
    axis_name: str | None = None,
) -> tuple[Any, dict[str, Array]]:
    """Return the state after a step of the optimiser, and what was measured.

    Args:
      state: before the step, with `weights` and `opt_state`.
      optimizer: of its weights.
      trained, frozen: the weights by path.
      found: what `gradients` returns, on this device; averaged over all of them. "loss" becomes NaN
        if a gradient is not finite.
      axis_name: the mapped axis over which the batch is split, if any.
    """
    if axis_name is not None:
        found = jax.lax.pmean(found, axis_name)
    grads, batch_stats, measured = found
    finite = jnp.isfinite(optax.tree.norm(grads))
    measured = {**measured, "loss": jnp.where(finite, measured["loss"], jnp.nan)}
    zeros = {path: jnp.zeros_like(leaf) for path, leaf in frozen.items()}
    updates, opt_state = optimizer.update(
        trees.unflatten({**grads, **zeros}), state.opt_state, state.weights
    )
    changes, _ = trees.split(updates, lambda path: path in trained)
    weights = trees.unflatten({**optax.apply_updates(trained, changes), **frozen})
    new = state.replace(
        step=state.step + 1, **weights, batch_stats=batch_stats, opt_state=opt_state
    )
    return new, measured
