"""The compiled steps of training and evaluation; the only file that says pmap.

Today's `jax.pmap` is jit plus shard_map: with `in_axes=None` and `out_axes=None` the state is
replicated over the devices without a device axis, and only batches are split. Where several domains
are trained at once on frozen filters, each device has states and batches of its own, and all share
w. Where several processes share the devices, each gives and gets what is on its own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from radapt_jax.data import augment
from radapt_jax.data.batches import Batch
from radapt_jax.data.domain import Domain
from radapt_jax.data.mixing import mix
from radapt_jax.models.spec import ModelSpec
from radapt_jax.train.distill import (
    Distillation,
    JointState,
    Taught,
    Teacher,
    channels,
    joint_update,
)
from radapt_jax.train.job import Job
from radapt_jax.train.step import Head, Lesson, TrainState, update
from radapt_jax.train.through import through_rounding
from radapt_jax.utils.distributed import AXIS
from radapt_jax.utils.programs import make_room
from radapt_jax.utils.trees import Variables

Measured = dict[str, Array]


def make_train_step(
    spec: ModelSpec,
    domain: Domain,
    optimizer: optax.GradientTransformation,
    labels: Mapping[str, Any],
    *,
    devices: Sequence[jax.Device],
    seed: int = 0,
    smoothing: float = 0.0,
    mixup: float = 0.0,
    distortion: float = 0.0,
    sync_norm: bool = False,
    parts: int = 1,
    dtype: Any = jnp.float32,
    bits: int = 32,
    teacher: Teacher | None = None,
    temperature: float = 1.0,
) -> Callable[..., tuple[TrainState, Measured]]:
    """Return the compiled `step -> (state, metrics)`; the state is donated.

    It is called as `step(state, batch, resident)`: `batch` is `batches.train_batch`'s, `resident`
    the pixels on the devices, or None. With a `teacher`, which sees the same images, normalised as
    for its own domain, its variables come last; see `step.Lesson` for `temperature`, and `through`
    for `bits`. Dropout draws from `seed` and the state's step. Metrics are the batch's mean loss
    (nats, smoothed) and top-1 in [0, 1]. With synchronised norms, the result does not depend on
    their number, unless `mixup` (α of `mixing.mix`) mixes each device's own. `parts`: see `update`.
    """
    make_room()
    model = spec.build(domain.num_classes, dtype=dtype, axis_name=AXIS, sync_norm=sync_norm)
    teaching = None if teacher is None else teacher.spec.build(domain.num_classes, dtype=dtype)
    seen = through_rounding(spec, bits)

    def step(
        state: TrainState, batch: Batch, resident: Any, *taught_by: Variables
    ) -> tuple[TrainState, Measured]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        images = augment.network_input(
            batch, domain.mean, domain.std, resident, domain.size, distortion, key
        )
        lesson = mixed = None
        if mixup:
            device = jax.lax.axis_index(AXIS)
            images, mixed = mix(images, batch["label"], mixup, key, device)
        if teacher is not None and teaching is not None:
            shown = augment.renormalised(images, domain, teacher.domain)
            answer = functools.partial(teaching.apply, *taught_by, train=False)
            lesson = Lesson(shown, answer, temperature)
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
            parts=parts,
            seen=seen,
            lesson=lesson,
            mixed=mixed,
        )

    return jax.pmap(
        step,
        axis_name=AXIS,
        in_axes=(None, 0, None) if teacher is None else (None, 0, None, None),
        out_axes=(None, None),
        donate_argnums=0,
        devices=list(devices),
    )


def make_head_step(
    optimizer: optax.GradientTransformation,
    labels: Mapping[str, Any],
    *,
    devices: Sequence[jax.Device],
    smoothing: float = 0.0,
    parts: int = 1,
) -> Callable[[TrainState, Batch], tuple[TrainState, Measured]]:
    """Return the compiled `step(state, batch) -> (state, metrics)` of a head alone.

    A batch has "features", what the head is given, and "label"; all else is as in
    `make_train_step`. Only the head may be trained.
    """
    make_room()

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Measured]:
        new, measured = update(
            Head,
            optimizer,
            labels,
            state,
            batch["features"],
            batch["label"],
            key=jax.random.key(0),  # nothing draws from it
            smoothing=smoothing,
            axis_name=AXIS,
            parts=parts,
        )
        # The mean over devices rounds, even of values that are all the same.
        return new.replace(batch_stats=state.batch_stats), measured

    return jax.pmap(
        step,
        axis_name=AXIS,
        in_axes=(None, 0),
        out_axes=(None, None),
        donate_argnums=0,
        devices=list(devices),
    )


def make_together_step(
    spec: ModelSpec,
    outputs: int,
    optimizer_of: Callable[[Any], optax.GradientTransformation],
    labels: Mapping[str, Any],
    *,
    devices: Sequence[jax.Device],
    each: int,
    seed: int = 0,
    smoothing: float = 0.0,
    mixup: float = 0.0,
    distortion: float = 0.0,
    parts: int = 1,
    dtype: Any = jnp.float32,
    bits: int = 32,
) -> Callable[[TrainState, Batch, Mapping[str, Any]], tuple[TrainState, Measured]]:
    """Return the compiled `step(state, batch, facts) -> (state, metrics)` of several domains.

    Every device trains `each` domains, and none talks to another. All leaves but `state.params`,
    which is frozen and shared, have the leading axes of `arrange`: (devices,) where a device has
    one domain, else (devices, each). The state is donated. A domain gets what it would get alone on
    one device, to rounding.

    Args:
      spec: the network of all of them.
      outputs: of the heads, which are padded to the largest class count.
      optimizer_of: makes the optimiser from the decay of adapters, which may differ by domain.
      labels: which variables are frozen; "filters" must be.

    `facts` are "mean" and "std" (3,), "classes" () and "decay" () of each domain.
    """
    make_room()
    model = spec.build(outputs, dtype=dtype, fold=each == 1)
    seen = through_rounding(spec, bits)

    def step(
        state: TrainState, batch: Batch, facts: Mapping[str, Any]
    ) -> tuple[TrainState, Measured]:
        key, mixed = jax.random.fold_in(jax.random.key(seed), state.step), None
        images = augment.network_input(
            batch, facts["mean"], facts["std"], distortion=distortion, key=key
        )
        if mixup:
            images, mixed = mix(images, batch["label"], mixup, key)
        return update(
            model,
            optimizer_of(facts["decay"]),
            labels,
            state,
            images,
            batch["label"],
            key=key,
            smoothing=smoothing,
            parts=parts,
            classes=facts["classes"],
            seen=seen,
            mixed=mixed,
        )

    state_axes: Any = TrainState(0, None, 0, 0, 0)
    axes: dict[str, Any] = {"in_axes": (state_axes, 0, 0), "out_axes": (state_axes, 0)}
    return jax.pmap(
        step if each == 1 else jax.vmap(step, **axes),
        axis_name=AXIS,
        donate_argnums=0,
        devices=list(devices),
        **axes,
    )


def make_joint_step(
    jobs: Sequence[Job],
    teachers: Mapping[str, Teacher],
    optimizer: optax.GradientTransformation,
    labels: Mapping[str, Any],
    how: Distillation,
    *,
    devices: Sequence[jax.Device],
) -> Callable[..., tuple[JointState, Measured]]:
    """Return the compiled `step -> (state, metrics)` of domains that train shared filters at once.

    It is called as `step(state, batches, variables, resident)`, the last three by domain: batches
    as for `make_train_step`, variables of the teachers, and pixels on the devices or None. The
    state is donated. See `distill.joint_update`; with synchronised norms, the result does not
    depend on the number of devices.

    Args:
      jobs: domains with the same options and number of steps.
      teachers: of each.
      optimizer: of the state's weights.
      labels: which of them are frozen.
      how: the weights of what is learnt from teachers.
      devices: over which every batch is split.
    """
    make_room()
    options, total = jobs[0].options, jobs[0].plan.total
    dtype, annealed = options.compute_dtype, how.annealed(total)
    taught = {
        job.name: Taught(
            domain=job.data.domain,
            student=job.spec.build(
                channels(job.variables), dtype=dtype, axis_name=AXIS, sync_norm=options.sync_norm
            ),
            teacher=teacher.spec.build(channels(teacher.variables), dtype=dtype),
            normalised=teacher.domain,
        )
        for job, teacher in ((job, teachers[job.name]) for job in jobs)
    }

    def step(
        state: JointState,
        fed: Mapping[str, Batch],
        variables: Mapping[str, Variables],
        resident: Mapping[str, Any],
    ) -> tuple[JointState, Measured]:
        return joint_update(
            taught,
            optimizer,
            labels,
            how,
            state,
            fed,
            variables,
            left=annealed(state.step),
            key=jax.random.fold_in(jax.random.key(options.seed), state.step),
            resident=resident,
            smoothing=options.label_smoothing,
            axis_name=AXIS,
            parts=options.accumulate,
        )

    return jax.pmap(
        step,
        axis_name=AXIS,
        in_axes=(None, 0, None, None),
        out_axes=(None, None),
        donate_argnums=0,
        devices=list(devices),
    )
