"""One optimiser step on several domains, each taught by a network of its own.

Filters are trained on all domains at once (Li, Liu and Bilen, "Universal representations", arXiv
2204.02744). The step minimises the sum over domains t of

    cross-entropy + λ(1 - CKA(A f, f_t)) + μ KL(teacher || student)

f and f_t are what the heads of the student and of the domain's teacher take, A is the domain's
aligner, and λ and μ fall linearly to 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jaxtyping import Array, Float

from radapt_jax.data import augment
from radapt_jax.data.batches import Batch
from radapt_jax.data.domain import Domain
from radapt_jax.family.features import through_head
from radapt_jax.models.spec import ModelSpec
from radapt_jax.nn import losses
from radapt_jax.nn.layers import classified
from radapt_jax.train.optim import FROZEN
from radapt_jax.train.step import gradients, stepped
from radapt_jax.utils import trees
from radapt_jax.utils.checks import check_all, number
from radapt_jax.utils.trees import Variables


@dataclasses.dataclass(frozen=True)
class Distillation:
    """How much is learnt from the teachers.

    Args:
      features: λ at the start, the weight of 1 - CKA of the features; 0: features are not compared.
      logits: μ at the start, the weight of the KL divergence; 0: logits are not compared.
      temperature: of both softmaxes in the KL divergence.
      anneal: fraction of the training in which both weights fall to 0.

    Raises:
      ValueError: an option outside its range.
    """

    features: float = 1.0
    logits: float = 1.0
    temperature: float = 1.0
    anneal: float = 1.0

    def __post_init__(self) -> None:
        check_all(vars(self), KINDS, "distillation: ")

    def annealed(self, total: int) -> optax.Schedule:
        """Return what is left of the weights by step, from 1 in the first to 0.

        Args:
          total: steps of the training; with `anneal` 1, it is 0 in the last.
        """
        return optax.linear_schedule(1.0, 0.0, max(round(self.anneal * total) - 1, 1))


KINDS = {
    **dict.fromkeys(("features", "logits"), number("[0, inf)")),
    "temperature": number("(0, inf)"),
    "anneal": number("(0, 1]"),
}


class JointState(struct.PyTreeNode):
    """All that joint training changes; `adapters`, `batch_stats` and `aligners` are by domain."""

    step: Any  # int32 ()
    params: Any
    adapters: Any
    batch_stats: Any
    aligners: Any  # (channels, channels) of each domain
    opt_state: Any

    @classmethod
    def on_host(
        cls, starts: Mapping[str, Variables], optimizer: optax.GradientTransformation
    ) -> JointState:
        """Return the state at step 0, in NumPy: copies of `starts`, and aligners that do nothing.

        Args:
          starts: first variables by domain; all have the same `params`.
          optimizer: of the weights.
        """
        own = {name: trees.to_numpy(start) for name, start in starts.items()}
        weights = {
            "params": next(iter(own.values()))["params"],
            "adapters": {name: it["adapters"] for name, it in own.items()},
            "aligners": {name: np.eye(channels(it), dtype=np.float32) for name, it in own.items()},
        }
        opt_state = jax.eval_shape(optimizer.init, weights)
        return cls(
            step=np.zeros((), np.int32),
            **weights,
            batch_stats={name: it["batch_stats"] for name, it in own.items()},
            opt_state=jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), opt_state),
        )

    @property
    def weights(self) -> dict[str, Any]:
        return {"params": self.params, "adapters": self.adapters, "aligners": self.aligners}

    def variables(self, name: str) -> dict[str, Any]:
        """Return the collections of one domain."""
        own = {"adapters": self.adapters[name], "batch_stats": self.batch_stats[name]}
        return {"params": self.params, **own}


class Teacher(NamedTuple):
    """A network that was trained on a domain before; it stays as it is.

    `domain` says how its images are normalised, `variables` are its three collections.
    """

    domain: Domain
    spec: ModelSpec
    variables: Variables


@dataclasses.dataclass(frozen=True)
class Taught:
    """A domain and the two networks that see its images; their heads change nothing.

    Args:
      domain: as the student sees it.
      student: built for as many classes as it has channels.
      teacher: likewise.
      normalised: the domain as the teacher sees it, with its own mean and std.
    """

    domain: Domain
    student: Any
    teacher: Any
    normalised: Domain


def channels(variables: Variables) -> int:
    """Return how many features the head of a network takes."""
    return int(variables["adapters"]["head"]["kernel"].shape[0])


def outputs(features: Array, variables: Variables) -> Float[Array, "b k"]:
    """Return the logits of features, by a domain's head."""
    head = variables["adapters"]["head"]
    return classified(features, head["kernel"], head["bias"])


def joint_update(
    taught: Mapping[str, Taught],
    optimizer: optax.GradientTransformation,
    labels: Mapping[str, Any],
    how: Distillation,
    state: JointState,
    fed: Mapping[str, Batch],
    teachers: Mapping[str, Variables],
    *,
    left: Any,
    key: Array,
    resident: Mapping[str, Any],
    smoothing: float = 0.0,
    axis_name: str | None = None,
    parts: int = 1,
) -> tuple[JointState, dict[str, Array]]:
    """Take one optimiser step on a batch of each domain; the body of the compiled joint step.

    Domains are computed one after another, so that a step needs the memory of one. CKA is taken
    over the images of all devices, or over those of a part.

    Args:
      taught: domains by name, in order.
      optimizer, labels: what trains the state's weights; which of them are frozen.
      how: how much is learnt from the teachers.
      state: before the step.
      fed: by domain, a batch or this device's share of it.
      teachers: their variables by domain, which nothing changes.
      left: what is left of the weights of `how`, in [0, 1].
      key: for dropout.
      resident: by domain, pixels that are kept on the device, or None.
      smoothing: of labels, in [0, 1).
      axis_name: the mapped axis over which batches are split, if any.
      parts: see `step.update`.

    Returns:
      The state after the step, and of each domain, (domains,), "loss" (nats: the mean of all
      terms; NaN if a gradient is not finite) and "top1" (in [0, 1]).
    """
    named = trees.flatten(labels)
    trained, frozen = trees.split(state.weights, lambda path: named[path] != FROZEN)
    total: dict[str, Array] = {}
    batch_stats: dict[str, Any] = {}
    found: list[dict[str, Array]] = []
    for index, (name, it) in enumerate(taught.items()):
        own = {path: leaf for path, leaf in trained.items() if _belongs(path, name)}
        still = {path: leaf for path, leaf in frozen.items() if _belongs(path, name)}
        batch = fed[name]
        if total:  # a domain is computed when the one before it is done with
            batch, total = jax.lax.optimization_barrier((batch, total))
        inputs = {
            "images": _seen(batch, it.domain, resident[name]),
            "taught": _seen(batch, it.normalised, resident[name]),
            "targets": batch["label"],
        }
        loss_of = _loss_of(name, it, still, teachers[name], how, left, smoothing, axis_name)
        grads, batch_stats[name], measured = gradients(
            loss_of, own, state.batch_stats[name], inputs, jax.random.fold_in(key, index), parts
        )
        found.append(measured)
        total |= {path: total[path] + it if path in total else it for path, it in grads.items()}
    by_domain = jax.tree.map(lambda *them: jnp.stack(them), *found)
    all_found = (total, batch_stats, by_domain)
    return stepped(state, optimizer, trained, frozen, all_found, axis_name)


def _belongs(path: str, name: str) -> bool:
    """Tell whether a domain's network has a variable of the joint state."""
    collection, *inside = path.split("/")
    return collection == "params" or inside[0] == name


def _seen(batch: Batch, domain: Domain, resident: Any) -> Float[Array, "b s s 3"]:
    return augment.network_input(batch, domain.mean, domain.std, resident, domain.size)


def _loss_of(
    name: str,
    it: Taught,
    frozen: Mapping[str, Array],
    teacher: Variables,
    how: Distillation,
    left: Any,
    smoothing: float,
    axis_name: str | None,
) -> Any:
    """Return the loss of one domain, as `step.gradients` takes it."""

    def loss_of(
        trained: dict[str, Array], batch_stats: Any, fed: Mapping[str, Array], key: Array
    ) -> tuple[Array, tuple[dict[str, Array], Any]]:
        weights = trees.unflatten({**trained, **frozen})
        variables = {
            "params": weights["params"],
            "adapters": weights["adapters"][name],
            "batch_stats": batch_stats,
        }
        theirs = it.teacher.apply(through_head(teacher), fed["taught"], train=False)
        ours, changed = it.student.apply(
            through_head(variables),
            fed["images"],
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        logits = outputs(ours, variables)
        pair = (ours @ weights["aligners"][name], theirs)
        if axis_name is not None:
            pair = jax.lax.all_gather(pair, axis_name, tiled=True)
        apart = losses.divergence(logits, outputs(theirs, teacher), how.temperature).mean()
        loss = losses.cross_entropy(logits, fed["targets"], smoothing).mean()
        loss += left * (how.features * (1 - losses.cka(*pair)) + how.logits * apart)
        top1 = (logits.argmax(-1) == fed["targets"]).mean()
        return loss, ({"loss": loss, "top1": top1}, changed["batch_stats"])

    return loss_of
