"""Training steps of one domain over all devices, or of several domains at once."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from radapt_jax.data import batches
from radapt_jax.data.pixels import DevicePixels, HostPixels, Pixels
from radapt_jax.train.compiled import Measured, make_together_step, make_train_step
from radapt_jax.train.job import Job
from radapt_jax.train.step import TrainState
from radapt_jax.utils import distributed
from radapt_jax.utils.distributed import distribute, replicate


def pixels_of(job: Job, split: str, devices: Sequence[jax.Device]) -> Pixels:
    """Return a split's pixels, on the devices if the options want them there."""
    data = job.data
    if not job.options.on_device:
        return HostPixels(data.splits[split], data.domain.size)
    put = functools.partial(replicate, devices=devices)
    return DevicePixels(data.splits[split], put, distributed.own(devices))


class OneDomain:
    """One domain; its batches are split over the devices.

    Args:
      jobs: that one.
      states: what it starts or goes on with.
      devices: over which a batch is split.
    """

    def __init__(
        self, jobs: Sequence[Job], states: Sequence[TrainState], devices: Sequence[jax.Device]
    ) -> None:
        [job], [state] = jobs, states
        options = job.options
        self._job, self._devices = job, devices
        self._pixels = pixels_of(job, "train", devices)
        self._state = replicate(state, devices)
        self._step = make_train_step(
            job.spec,
            job.data.domain,
            job.optimizer(),
            job.labels,
            devices=devices,
            seed=options.seed,
            smoothing=options.label_smoothing,
            mixup=options.mixup,
            distortion=options.distortion,
            sync_norm=options.sync_norm,
            parts=options.accumulate,
            dtype=options.compute_dtype,
            bits=options.bits,
            teacher=job.teacher,
            temperature=job.temperature,
        )
        self._taught_by: tuple[Any, ...] = ()
        if job.teacher is not None:
            self._taught_by = (replicate(dict(job.teacher.variables), devices),)

    def step(self, index: int) -> Measured:
        """Take step `index`; return "loss" and "top1", one value a domain."""
        options = self._job.options
        batch = batches.train_batch(
            self._pixels,
            self._job.data.domain,
            options.batch_size,
            options.seed,
            index,
            len(self._devices),
            options.accumulate,
            distributed.place(),
        )
        resident = self._pixels.resident
        self._state, measured = self._step(self._state, batch, resident, *self._taught_by)
        return measured

    def state(self, index: int) -> TrainState:
        """Return the state of domain `index`."""
        assert index == 0
        return self._state


class ManyDomains:
    """Several domains that share frozen filters; each is trained on one device, by itself.

    Heads are padded to the largest class count. As many devices are used as share the domains
    evenly.

    Args:
      jobs: domains of the same network, image size, and number of steps.
      states: what each starts or goes on with.
      devices: that may be used.
    """

    def __init__(
        self, jobs: Sequence[Job], states: Sequence[TrainState], devices: Sequence[jax.Device]
    ) -> None:
        first, count = jobs[0], len(jobs)
        options = first.options
        used = max(number for number in range(1, len(devices) + 1) if count % number == 0)
        self._jobs, self._devices, self._each = jobs, devices[:used], count // used
        self._classes = [job.data.domain.num_classes for job in jobs]
        outputs = max(self._classes)
        self._pixels = [pixels_of(job, "train", devices) for job in jobs]
        self._facts = self._put(
            [
                {
                    "mean": np.array(job.data.domain.mean, np.float32),
                    "std": np.array(job.data.domain.std, np.float32),
                    "classes": np.int32(job.data.domain.num_classes),
                    "decay": np.float32(job.plan.decay["adapters"] or 0.0),
                }
                for job in jobs
            ]
        )
        own = [widen(state.replace(params={}), outputs) for state in states]
        self._state = self._put(own).replace(params=replicate(states[0].params, self._devices))
        self._step = make_together_step(
            first.spec,
            outputs,
            first.optimizer,
            first.labels,
            devices=self._devices,
            each=self._each,
            seed=options.seed,
            smoothing=options.label_smoothing,
            mixup=options.mixup,
            distortion=options.distortion,
            parts=options.accumulate,
            dtype=options.compute_dtype,
            bits=options.bits,
        )

    def step(self, index: int) -> Measured:
        """Take step `index` of all; return "loss" and "top1", one value a domain."""
        fed = []
        for job, pixels in zip(self._jobs, self._pixels, strict=True):
            options = job.options
            batch = batches.train_batch(
                pixels,
                job.data.domain,
                options.batch_size,
                options.seed,
                index,
                1,
                options.accumulate,
            )
            fed.append({name: array[0] for name, array in batch.items()})
        self._state, measured = self._step(self._state, self._arrange(fed), self._facts)
        return measured

    def state(self, index: int) -> TrainState:
        """Return the state of domain `index`, on the host."""
        place = index if self._each == 1 else divmod(index, self._each)
        own = jax.tree.map(lambda leaf: np.array(leaf[place]), self._state.replace(params={}))
        own = narrow(own, self._classes[index])
        return own.replace(params=jax.tree.map(np.array, self._state.params))

    def _arrange(self, trees: Sequence[Any]) -> Any:
        """Stack a tree of each domain: leaves (devices, ...), or (devices, each, ...)."""
        lead = (len(self._devices),) if self._each == 1 else (len(self._devices), self._each)

        def stack(*leaves: Any) -> np.ndarray:
            return np.stack(leaves).reshape(*lead, *np.shape(leaves[0]))

        return jax.tree.map(stack, *trees)

    def _put(self, trees: Sequence[Any]) -> Any:
        return distribute(self._arrange(trees), self._devices)


def widen(state: TrainState, outputs: int) -> TrainState:
    """Pad the head to `outputs`, and with it what the optimiser keeps of it."""

    def pad(leaf: np.ndarray) -> np.ndarray:
        room = [(0, 0)] * (leaf.ndim - 1) + [(0, outputs - leaf.shape[-1])]
        return np.pad(leaf, room)

    return _on_head(pad, state)


def narrow(state: TrainState, classes: int) -> TrainState:
    """Take the padding off again."""
    return _on_head(lambda leaf: leaf[..., :classes].copy(), state)


def _on_head(change: Any, state: TrainState) -> TrainState:
    def at(path: tuple[Any, ...], leaf: np.ndarray) -> np.ndarray:
        names = [getattr(key, "key", None) for key in path[-2:]]
        return change(leaf) if names in (["head", "kernel"], ["head", "bias"]) else leaf

    return jax.tree_util.tree_map_with_path(at, state)
