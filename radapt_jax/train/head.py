"""Trains a head alone, on features of its domain's images that are computed once.

Filters, adapters and norms stand still, so that what they make of an image changes with its window
alone. Some views of every image go through the network in evaluation; then a step is a product.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from jaxtyping import Float

from radapt_jax.data import augment, batches
from radapt_jax.data.views import kept_views, train_positions, views_differ
from radapt_jax.family.features import features, through_head
from radapt_jax.train.compiled import Measured, make_head_step
from radapt_jax.train.devices import pixels_of
from radapt_jax.train.job import Job
from radapt_jax.train.optim import FROZEN
from radapt_jax.train.step import TrainState
from radapt_jax.utils import distributed
from radapt_jax.utils.distributed import replicate
from radapt_jax.utils.programs import make_room
from radapt_jax.utils.trees import Variables


class HeadAlone:
    """One domain whose head is trained; a batch of features is split over the devices.

    Args:
      jobs: that one; nothing but its head is trained.
      states: what it starts or goes on with.
      devices: over which a batch is split.

    Raises:
      ValueError: more than its head is trained, or it is to learn from a teacher, which would have
        to see the same views.
    """

    def __init__(
        self, jobs: Sequence[Job], states: Sequence[TrainState], devices: Sequence[jax.Device]
    ) -> None:
        [job], [state] = jobs, states
        options = job.options
        if more := set(jax.tree.leaves(job.labels)) - {"head", FROZEN}:
            raise ValueError(
                f"{job.name}: found views {options.views} where {sorted(more)} are trained; "
                "expected 0, since features change with what is before the head."
            )
        if job.teacher is not None:
            raise ValueError(
                f"{job.name}: found views {options.views} and a teacher; expected 0, so that the "
                "teacher sees what the domain sees."
            )
        self._job, self._devices = job, devices
        self._views = np.stack(list(kept_features(job, state.variables, devices)))
        self._state = replicate(state, devices)
        self._step = make_head_step(
            job.optimizer(),
            job.labels,
            devices=devices,
            smoothing=options.label_smoothing,
            parts=options.accumulate,
        )

    def step(self, index: int) -> Measured:
        """Take step `index`; return "loss" and "top1". Images come as without kept features."""
        options, split = self._job.options, self._job.data.splits["train"]
        size, seed = options.batch_size, options.seed
        mine = batches.rows(size, len(self._devices), options.accumulate, distributed.place())
        positions = train_positions(len(split), size, seed, index)[mine]
        chosen = np.random.default_rng([seed, index, 3]).integers(len(self._views), size=size)[mine]
        fed = {"features": self._views[chosen, positions], "label": split.targets[positions]}
        self._state, measured = self._step(self._state, fed)
        return measured

    def state(self, index: int) -> TrainState:
        """Return the state of domain `index`."""
        assert index == 0
        return self._state


def kept_features(
    job: Job, variables: Variables, devices: Sequence[jax.Device]
) -> Iterator[Float[np.ndarray, "n c"]]:
    """Yield the features of all training images, view by view.

    There is one view where training sees nothing but the centre of an image.

    Args:
      job: the domain.
      variables: `params`, `adapters` and `batch_stats`.
      devices: where its pixels are, if they are kept on devices.
    """
    make_room()
    domain, options = job.data.domain, job.options
    pixels = pixels_of(job, "train", devices)
    channels = variables["adapters"]["head"]["kernel"].shape[0]
    model = job.spec.served().build(channels, dtype=options.compute_dtype)
    own = jax.device_put(through_head(variables))
    for number in range(options.views if views_differ(domain) else 1):
        see = functools.partial(kept_views, pixels.split, domain, seed=options.seed, number=number)
        found = []
        for real, batch in batches.eval_batches(pixels, domain, options.batch_size, 1, see=see):
            fed = {name: array[0] for name, array in batch.items()}
            images = augment.network_input(
                fed, domain.mean, domain.std, pixels.resident, domain.size
            )
            rows = features(model, own, images, domain.mean, domain.std)
            found.append(np.asarray(rows, np.float32)[:real])
        yield np.concatenate(found)
