"""Trains one domain, or several at once or jointly, from the first step to the end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from radapt_jax.train.devices import ManyDomains, OneDomain
from radapt_jax.train.head import HeadAlone
from radapt_jax.train.job import Job
from radapt_jax.train.joint import Course, JointDomains, JointPlace, Share
from radapt_jax.train.options import TrainOptions
from radapt_jax.train.place import Place
from radapt_jax.train.progress import Diverged, Progress
from radapt_jax.train.signals import Stopped, Stopping
from radapt_jax.utils import distributed

Trained = tuple[Job, dict[str, Any], dict[str, float]]
Make = Callable[[Sequence[Job], Sequence[Any], Sequence[jax.Device]], Any]  # what takes the steps


def train_domains(jobs: Sequence[Job], place: Place, stopping: Stopping) -> Iterator[Trained]:
    """Train domains, several at once where that is possible, and yield each when it is done.

    A domain continues from its latest checkpoint, if the place has one. Domains are trained at once
    if they share a network, an image size and a number of steps, and have reached the same step
    (and skipped the same batches); see `devices.ManyDomains`.

    Args:
      jobs: domains, each with a train split; its val split is evaluated if it has one. Several only
        where `options.together` is more than 1.
      place: where states and metrics are kept.
      stopping: holds signals back while a step runs.

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
        domain = Progress(job, place, distributed.devices())
        network = (str(job.spec), job.data.domain.size, job.plan.total)
        alike = (network, domain.reached, tuple(domain.skipped))
        groups.setdefault(alike, []).append(domain)
    for group in groups.values():
        options = group[0].job.options
        alone = HeadAlone if options.views else OneDomain
        make: Make = ManyDomains if options.together > 1 else alone
        yield from _train(group, stopping, make, len(group) == 1)


def train_jointly(course: Course, place: Place, stopping: Stopping) -> list[Trained]:
    """Train domains that share filters, all in every step, and return each as `train_domains` does.

    They have one state: it is saved and gone on with as a whole, and the best one is that of the
    highest mean of their validation top-1.

    Args:
      course: the domains and their teachers.
      place: where the state and the metrics of each domain are kept.
      stopping: holds signals back while a step runs.

    Raises:
      Diverged, MemoryError, Stopped: see `train_domains`.
    """
    joint = JointPlace(place, [job.name for job in course.jobs])
    start = course.start()
    group = [
        Progress(job, joint, distributed.devices(), Share(start, job.name)) for job in course.jobs
    ]

    def make(_: Sequence[Job], states: Sequence[Any], devices: Sequence[jax.Device]) -> Any:
        return JointDomains(course, states, devices)

    return _train(group, stopping, make, rewinds=True)


def _train(
    group: Sequence[Progress], stopping: Stopping, make: Make, rewinds: bool
) -> list[Trained]:
    """Train a group from the step it has reached to the end.

    Args:
      group: what is trained.
      stopping: holds signals back.
      make: makes what takes the steps.
      rewinds: whether all may go back if one diverges.
    """
    options = group[0].job.options
    with contextlib.ExitStack() as stack:
        stack.enter_context(stopping.held())
        for index, domain in enumerate(group):
            domain.index = index
            stack.enter_context(domain)
        stack.enter_context(_explaining_memory_errors(options))
        while True:
            try:
                _run(group, stopping, make)
                stopping.asked = distributed.largest(stopping.asked)
                return [(domain.job, *domain.exported()) for domain in group]
            except Diverged as diverged:
                if options.on_nan != "rewind" or not rewinds:
                    raise
                for domain in group:
                    domain.rewind(diverged)


def _run(group: Sequence[Progress], stopping: Stopping, make: Make) -> None:
    """Take the remaining steps; evaluate and save on the way, and when asked to stop."""
    jobs, states = [domain.job for domain in group], [domain.state for domain in group]
    trained = make(jobs, states, distributed.devices())
    first, names = group[0], ", ".join(job.name for job in jobs)
    for done in range(int(first.state.step) + 1, first.plan.total + 1):
        measured = trained.step(first.batch(done - 1))
        for domain in group:
            domain.advance(done, measured)
        asked = stopping.asked
        if distributed.several():  # all stop after the same step, one after which metrics are read
            log_every = first.job.options.log_every
            regular = done in first.plan.evaluations or done % log_every == 0
            asked = distributed.largest(asked) if regular else 0
        if done in first.plan.evaluations or asked:
            for index, domain in enumerate(group):
                save = domain.evaluate if done in first.plan.evaluations else domain.save
                save(done, trained.state(index))
        if asked:
            message = f"{names}: saved at step {done} of {first.plan.total}. "
            raise Stopped(asked, message + "Start the same command again to go on.")
    for index, domain in enumerate(group):
        domain.state = trained.state(index)


@contextlib.contextmanager
def _explaining_memory_errors(options: TrainOptions) -> Iterator[None]:
    """Let an out-of-memory error say what to do.

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
