"""Training of one domain or of several at once, from the first step to what becomes of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from radapt_jax.train.devices import ManyDomains, OneDomain
from radapt_jax.train.job import Job
from radapt_jax.train.options import TrainOptions
from radapt_jax.train.place import Place
from radapt_jax.train.progress import Diverged, Progress
from radapt_jax.train.signals import Stopped, Stopping
from radapt_jax.utils import distributed

Trained = tuple[Job, dict[str, Any], dict[str, float]]


def train_domains(jobs: Sequence[Job], place: Place, stopping: Stopping) -> Iterator[Trained]:
    """Train domains, at once those that can be, and yield them as they are done.

    One goes on from its latest checkpoint, if the place has one.
    Domains are trained at once if they are of one network, image size and number of steps, and have
    got equally far (and skipped the same batches); see `devices.ManyDomains`.

    Args:
      jobs: domains, with a train split each; val is evaluated where there is one.
      place: where states and metrics are kept.
      stopping: what waits to be told of a signal.

    Yields:
      The job, the variables of the exported state (NumPy), and `{"val": top-1 in percent, "step":
      its step}`.

    Raises:
      Diverged: a loss or a gradient is NaN or infinite, and the options do not say to rewind.
      MemoryError: the device has no room for a step.
      Stopped: a signal asked for it, and what is trained was saved.
    """
    groups: dict[Any, list[Progress]] = {}
    for job in jobs:
        course = Progress(job, place, distributed.devices())
        network = (str(job.spec), job.data.domain.size, job.plan.total)
        alike = (network, course.reached, tuple(course.skipped))
        groups.setdefault(alike, []).append(course)
    for group in groups.values():
        yield from _train(group, stopping)


def _train(courses: Sequence[Progress], stopping: Stopping) -> list[Trained]:
    """Train a group from where it is to the end."""
    options = courses[0].job.options
    with contextlib.ExitStack() as stack:
        stack.enter_context(stopping.held())
        for index, course in enumerate(courses):
            course.index = index
            stack.enter_context(course)
        stack.enter_context(_telling_what_does_not_fit(options))
        while True:
            try:
                _run(courses, stopping)
                stopping.asked = distributed.largest(stopping.asked)
                return [(course.job, *course.exported()) for course in courses]
            except Diverged as diverged:
                if options.on_nan != "rewind" or len(courses) > 1:
                    raise
                courses[0].rewind(diverged)


def _run(courses: Sequence[Progress], stopping: Stopping) -> None:
    """Take all steps that are left; evaluate and save on the way, and when asked to stop."""
    jobs, states = [course.job for course in courses], [course.state for course in courses]
    together = jobs[0].options.together > 1
    engine = (ManyDomains if together else OneDomain)(jobs, states, distributed.devices())
    first, names = courses[0], ", ".join(job.name for job in jobs)
    for done in range(int(first.state.step) + 1, first.plan.total + 1):
        measured = engine.step(first.batch(done - 1))
        for course in courses:
            course.advance(done, measured)
        asked = stopping.asked
        if distributed.several():  # all stop after the same step, one after which metrics are read
            log_every = first.job.options.log_every
            regular = done in first.plan.stops or done % log_every == 0
            asked = distributed.largest(asked) if regular else 0
        if done in first.plan.stops or asked:
            for index, course in enumerate(courses):
                save = course.stop if done in first.plan.stops else course.pause
                save(done, engine.state(index))
        if asked:
            told = f"{names}: saved at step {done} of {first.plan.total}. "
            raise Stopped(asked, told + "Start the same command again to go on.")
    for index, course in enumerate(courses):
        course.state = engine.state(index)


@contextlib.contextmanager
def _telling_what_does_not_fit(options: TrainOptions) -> Iterator[None]:
    """Let an error of memory say what to do.

    Raises:
      MemoryError: the device has no room for a step.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        size, parts = options.batch_size, options.accumulate
        more, fewer = 2 * parts, size // 2
        raise MemoryError(
            f"a step of {size} images in {parts} parts does not fit in the device's memory: "
            f"compute it in more parts (accumulate={more}; train.py: "
            f"--config.train.accumulate={more}), or take fewer images (batch_size={fewer}; "
            f"train.py: --config.train.batch_size={fewer}).\n  {str(error).splitlines()[0]}"
        ) from error
