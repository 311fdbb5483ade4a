"""The compiled step of evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from radapt_jax.data import augment
from radapt_jax.data.batches import Batch
from radapt_jax.data.domain import Domain
from radapt_jax.models.spec import ModelSpec
from radapt_jax.nn import losses
from radapt_jax.utils.distributed import AXIS
from radapt_jax.utils.programs import make_room
from radapt_jax.utils.trees import Variables

EvalStep = Callable[[Variables, Batch, Any], Mapping[str, Array]]


def make_eval_step(
    spec: ModelSpec,
    domain: Domain,
    *,
    devices: Sequence[jax.Device],
    dtype: Any = jnp.float32,
) -> EvalStep:
    """Return the compiled `step(variables, batch, resident)` of evaluation.

    The step returns "predicted" labels, "sure" (their probabilities) and "loss" (nats) of each
    image, (devices, b / devices), for all devices to every process. Probabilities are averaged over
    the views of an image.

    Args:
      spec: the model spec.
      domain: its class count, mean, std and size are compiled in.
      devices: all devices; a `batch` comes from `batches.eval_batches` for as many.
      dtype: of the computation.
    """
    make_room()
    model = spec.build(domain.num_classes, dtype=dtype)

    def step(variables: Variables, batch: Batch, resident: Any) -> dict[str, Array]:
        images = augment.network_input(batch, domain.mean, domain.std, resident, domain.size)
        logits: Any = model.apply(variables, images, train=False)
        labels = batch["label"]
        by_view = logits.reshape(len(labels), -1, domain.num_classes)
        if by_view.shape[1] == 1:
            joined = by_view[:, 0]
        else:
            joined = jax.nn.logsumexp(jax.nn.log_softmax(by_view), axis=1)
        predicted = joined.argmax(-1).astype(jnp.int32)
        judged = {
            "predicted": predicted,
            "sure": jax.nn.softmax(joined).max(-1),
            "loss": losses.cross_entropy(joined, labels),
        }
        return jax.lax.all_gather(judged, AXIS)

    return jax.pmap(
        step, axis_name=AXIS, in_axes=(None, 0, None), out_axes=None, devices=list(devices)
    )
