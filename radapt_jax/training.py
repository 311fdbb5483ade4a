"""Training of one domain or of several at once, from the first step to what becomes of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from radapt_jax import hosts
from radapt_jax.course import Course, reached
from radapt_jax.engine import ManyDomains, OneDomain
from radapt_jax.plan import Job

Trained = tuple[Job, dict[str, Any], dict[str, float]]


def train_domains(jobs: Sequence[Job], workdir: Path) -> Iterator[Trained]:
    """Train domains, at once those that can be, and yield them as they are done.

    One goes on from its latest checkpoint under `<workdir>/training/<domain>`, if there is one.
    Domains are trained at once if they are of one network, image size and number of steps, and have
    got equally far; see `engine.ManyDomains`.

    Args:
      jobs: domains, with a train split each; val is evaluated where there is one.
      workdir: of the run.

    Yields:
      The job, the variables of the exported state (NumPy), and `{"val": top-1 in percent, "step":
      its step}`.

    Raises:
      FloatingPointError: a loss is NaN or infinite.
    """
    groups: dict[Any, list[Job]] = {}
    for job in jobs:
        alike = (str(job.spec), job.data.domain.size, job.plan.total) if len(jobs) > 1 else ()
        groups.setdefault((alike, reached(job, workdir)), []).append(job)
    for group in groups.values():
        yield from _train(group, workdir)


def _train(jobs: Sequence[Job], workdir: Path) -> Iterator[Trained]:
    devices = hosts.devices()
    with contextlib.ExitStack() as stack:
        courses = [
            stack.enter_context(Course(job, workdir, index, devices))
            for index, job in enumerate(jobs)
        ]
        states = [course.state for course in courses]
        engine = (ManyDomains if len(jobs) > 1 else OneDomain)(jobs, states, devices)
        plan = courses[0].plan
        for step in range(int(states[0].step), plan.total):
            measured = engine.step(step)
            for course in courses:
                course.advance(step + 1, measured)
            if step + 1 in plan.stops:
                for index, course in enumerate(courses):
                    course.stop(step + 1, engine.state(index))
        for course in courses:
            yield course.job, *course.exported()
