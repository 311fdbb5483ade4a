"""The training and the evaluation step; the only file that says pmap.

Today's `jax.pmap` is jit plus shard_map: with `in_axes=None` and `out_axes=None` the state is
replicated over the devices without a device axis, and only batches are split.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jaxtyping import Array, Float

from radapt_jax import metrics, trees
from radapt_jax.data import augment
from radapt_jax.domains import Domain
from radapt_jax.models import ModelSpec
from radapt_jax.optim import FROZEN

AXIS = "devices"
Batch = Mapping[str, Any]


class State(struct.PyTreeNode):
    """All that training changes: the step, the three collections and the optimiser's state."""

    step: Any  # int32 ()
    params: Any
    adapters: Any
    batch_stats: Any
    opt_state: Any

    @classmethod
    def create(
        cls,
        variables: Mapping[str, Any],
        optimizer: optax.GradientTransformation,
        devices: Sequence[jax.Device],
    ) -> State:
        """Return the state at step 0 on all devices, from copies of `variables`.

        The step donates its state; an array that came to the device without a copy would be
        deleted under its owner's hands.
        """
        own = trees.to_numpy(variables)
        weights = {"params": own["params"], "adapters": own["adapters"]}
        opt_state = jax.eval_shape(optimizer.init, weights)
        zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), opt_state)
        step = np.zeros((), np.int32)
        return replicate(cls(step=step, **own, opt_state=zeros), devices)

    @property
    def weights(self) -> dict[str, Any]:
        return {"params": self.params, "adapters": self.adapters}

    @property
    def variables(self) -> dict[str, Any]:
        return {**self.weights, "batch_stats": self.batch_stats}


def replicate(tree: Any, devices: Sequence[jax.Device]) -> Any:
    """Put a tree on all devices as the steps return it, so that they compile only once."""
    mesh = jax.sharding.Mesh(np.array(devices), (AXIS,))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.device_put(tree, everywhere)


def update(
    model: Any,
    optimizer: optax.GradientTransformation,
    labels: Mapping[str, Any],
    state: State,
    images: Float[Array, "b h w 3"],
    targets: Array,
    *,
    key: Array,
    smoothing: float = 0.0,
    axis_name: str | None = None,
) -> tuple[State, dict[str, Array]]:
    """Take one optimiser step on normalised images; the body of the compiled training step.

    Gradients are taken with respect to the trained variables alone, so the gradients of frozen
    filters are never computed, and frozen variables come back untouched, bit for bit.
    """
    named = trees.flatten(labels)
    trained, frozen = trees.split(state.weights, lambda path: named[path] != FROZEN)

    def loss_of(trained: dict[str, Array]) -> tuple[Array, tuple[Array, Any]]:
        weights = trees.unflatten({**trained, **frozen})
        logits, changed = model.apply(
            {**weights, "batch_stats": state.batch_stats},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        loss = metrics.cross_entropy(logits, targets, smoothing).mean()
        return loss, (logits, changed["batch_stats"])

    (loss, (logits, batch_stats)), grads = jax.value_and_grad(loss_of, has_aux=True)(trained)
    top1 = (logits.argmax(-1) == targets).mean()
    if axis_name is not None:
        grads, batch_stats, loss, top1 = jax.lax.pmean((grads, batch_stats, loss, top1), axis_name)
    zeros = {path: jnp.zeros_like(leaf) for path, leaf in frozen.items()}
    updates, opt_state = optimizer.update(
        trees.unflatten({**grads, **zeros}), state.opt_state, state.weights
    )
    changes, _ = trees.split(updates, lambda path: path in trained)
    weights = trees.unflatten({**optax.apply_updates(trained, changes), **frozen})
    new = state.replace(
        step=state.step + 1, **weights, batch_stats=batch_stats, opt_state=opt_state
    )
    return new, {"loss": loss, "top1": top1}


def make_train_step(
    spec: ModelSpec,
    domain: Domain,
    optimizer: optax.GradientTransformation,
    labels: Mapping[str, Any],
    *,
    devices: Sequence[jax.Device],
    seed: int = 0,
    smoothing: float = 0.0,
    sync_norm: bool = False,
    dtype: Any = jnp.float32,
) -> Callable[[State, Batch, Any], tuple[State, dict[str, Array]]]:
    """Return the compiled `step -> (state, metrics)`; the state is donated.

    It is called as `step(state, batch, resident)`: `batch` is `batches.train_batch`'s, `resident`
    the pixels on the devices, or None. Dropout draws from `seed` and the state's step. Metrics are
    the batch's mean loss (nats, smoothed) and top-1 in [0, 1], over all devices. With synchronised
    norms, the result does not depend on the number of devices.
    """
    model = spec.build(domain.num_classes, dtype=dtype, axis_name=AXIS, sync_norm=sync_norm)

    def step(state: State, batch: Batch, resident: Any) -> tuple[State, dict[str, Array]]:
        images = augment.network_input(batch, resident, domain)
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        return update(
            model,
            optimizer,
            labels,
            state,
            images,
            batch["label"],
            key=key,
            smoothing=smoothing,
            axis_name=AXIS,
        )

    return jax.pmap(
        step,
        axis_name=AXIS,
        in_axes=(None, 0, None),
        out_axes=(None, None),
        donate_argnums=0,
        devices=list(devices),
    )


def make_eval_step(
    spec: ModelSpec,
    domain: Domain,
    *,
    devices: Sequence[jax.Device],
    dtype: Any = jnp.float32,
) -> Callable[[Mapping[str, Any], Batch, Any], dict[str, Array]]:
    """Return the compiled `step(variables, batch, resident)` of evaluation.

    It returns "predicted" labels and "loss" (nats) of each image, (devices, b / devices). `batch`
    is one of `batches.eval_batches`; probabilities are averaged over the views of an image.
    """
    model = spec.build(domain.num_classes, dtype=dtype)

    def step(variables: Mapping[str, Any], batch: Batch, resident: Any) -> dict[str, Array]:
        images = augment.network_input(batch, resident, domain)
        logits: Any = model.apply(variables, images, train=False)
        labels = batch["label"]
        by_view = logits.reshape(len(labels), -1, domain.num_classes)
        if by_view.shape[1] == 1:
            joined = by_view[:, 0]
        else:
            joined = jax.nn.logsumexp(jax.nn.log_softmax(by_view), axis=1)
        predicted = joined.argmax(-1).astype(jnp.int32)
        return {"predicted": predicted, "loss": metrics.cross_entropy(joined, labels)}

    return jax.pmap(
        step, axis_name=AXIS, in_axes=(None, 0, None), out_axes=0, devices=list(devices)
    )
