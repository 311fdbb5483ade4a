"""Joint training of several domains: one state for all, seen by each as its own.

A domain's `progress.Progress` evaluates, logs and goes on as if it were alone. What it takes for
its state is a `Share` of the joint one, and the joint state is saved once all have given theirs.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from radapt_jax.data import batches
from radapt_jax.train import optim
from radapt_jax.train.checkpoints import Measured
from radapt_jax.train.compiled import make_joint_step
from radapt_jax.train.devices import pixels_of
from radapt_jax.train.distill import Distillation, JointState, Teacher
from radapt_jax.train.job import Job
from radapt_jax.train.log import Log
from radapt_jax.train.place import Checkpoints, Place
from radapt_jax.utils import distributed
from radapt_jax.utils.distributed import replicate

ALL = "+all"  # what the states of all domains are kept under; no domain can have this name
ALIGNERS = "aligners"  # their label


def _adapters_of(name: str) -> str:
    """Return the label of a domain's adapters."""
    return f"adapters_{name}"


@dataclasses.dataclass(frozen=True)
class Share:
    """A joint state as one of its domains sees it."""

    joint: JointState
    name: str

    @property
    def step(self) -> Any:
        return self.joint.step

    @property
    def variables(self) -> dict[str, Any]:
        return self.joint.variables(self.name)


@dataclasses.dataclass(frozen=True)
class Course:
    """Domains that train shared filters at once, each with a teacher.

    Args:
      jobs: the domains in order, with the same filters, options and number of steps.
      teachers: by domain.
      how: how much is learnt from them.
    """

    jobs: Sequence[Job]
    teachers: Mapping[str, Teacher]
    how: Distillation

    @functools.cached_property
    def labels(self) -> dict[str, Any]:
        """Which variable is trained as what; adapters have a label, and so a decay, by domain."""
        own = {}
        for job in self.jobs:
            renamed = {"adapters": _adapters_of(job.name)}
            own[job.name] = jax.tree.map(
                lambda it, to=renamed: to.get(it, it), job.labels["adapters"]
            )
        aligners = dict.fromkeys(own, ALIGNERS)
        return {"params": self.jobs[0].labels["params"], "adapters": own, "aligners": aligners}

    def optimizer(self) -> Any:
        """Return the optimiser; aligners have no decay, because CKA does not see their size."""
        plan, options = self.jobs[0].plan, self.jobs[0].options
        adapters = {_adapters_of(job.name): job.plan.decay["adapters"] for job in self.jobs}
        usual = optim.decays_of(plan.decay, self.jobs[0].spec.adapter.decay)
        decay = {**usual, ALIGNERS: 0.0, **adapters}
        return optim.make_optimizer(
            self.labels, decay, plan.schedule, options.momentum, name=options.optimizer
        )

    def start(self) -> JointState:
        """Return the state before the first step, in NumPy."""
        starts = {job.name: job.variables for job in self.jobs}
        return JointState.on_host(starts, self.optimizer())


class JointDomains:
    """Domains that train shared filters; the batch of each is split over the devices.

    Args:
      course: the domains and their teachers.
      states: shares of the joint state that they start or go on with.
      devices: over which batches are split.
    """

    def __init__(
        self, course: Course, states: Sequence[Share], devices: Sequence[jax.Device]
    ) -> None:
        self._jobs, self._devices = course.jobs, devices
        self._pixels = {job.name: pixels_of(job, "train", devices) for job in course.jobs}
        self._resident = {name: pixels.resident for name, pixels in self._pixels.items()}
        start = jax.tree.map(np.array, states[0].joint)  # steps donate it; others may go back to it
        self._state = replicate(start, devices)
        variables = {name: dict(it.variables) for name, it in course.teachers.items()}
        self._teachers = replicate(variables, devices)
        self._step = make_joint_step(
            course.jobs,
            course.teachers,
            course.optimizer(),
            course.labels,
            course.how,
            devices=devices,
        )

    def step(self, index: int) -> Mapping[str, Any]:
        """Take step `index` of all; return "loss" and "top1", one value a domain."""
        fed = {}
        for job in self._jobs:
            fed[job.name] = batches.train_batch(
                self._pixels[job.name],
                job.data.domain,
                job.options.batch_size,
                job.options.seed,
                index,
                len(self._devices),
                job.options.accumulate,
                distributed.place(),
            )
        self._state, measured = self._step(self._state, fed, self._teachers, self._resident)
        return measured

    def state(self, index: int) -> Share:
        """Return the state of domain `index`."""
        return Share(self._state, self._jobs[index].name)


class JointPlace:
    """A place in which several domains have one state.

    Args:
      place: where it is kept; metrics of each domain are kept there too.
      names: of all domains.
    """

    def __init__(self, place: Place, names: Sequence[str]) -> None:
        self._place, self._names = place, names
        self._kept = place.checkpoints(ALL, ())
        self._given: dict[str, tuple[float, Measured]] = {}
        self._loaded: JointState | None = None

    def where(self, name: str) -> str:
        return self._place.where(ALL)

    def begin(self, name: str, facts: Mapping[str, Any]) -> None:
        self._place.begin(name, facts)

    def checkpoints(self, name: str, leave_out: Collection[str]) -> Checkpoints:
        return _OfOne(self._kept, self, name)

    def log(self, name: str, start: int, total: int, batch_size: int) -> Log:
        return self._place.log(name, start, total, batch_size)

    def skipped(self, name: str) -> list[int]:
        return self._place.skipped(ALL)

    def skip(self, name: str, skipped: Sequence[int]) -> None:
        self._place.skip(ALL, skipped)

    def rows(self, name: str) -> list[dict[str, str]]:
        return self._place.rows(name)

    def load(self, step: int, like: JointState) -> JointState:
        """Return the joint state of a step; it is read once for all domains."""
        if self._loaded is None or int(self._loaded.step) != step:
            self._loaded = self._kept.load(step, like)
        return self._loaded

    def give(self, name: str, step: int, state: Share, top1: float, measured: Measured) -> None:
        """Take one domain's part of a checkpoint, and save that when it is the last.

        Validation top-1 of the whole is the mean over domains.
        """
        self._given[name] = top1, measured
        if len(self._given) < len(self._names):
            return
        known = {f"{it}/val": [top1] for it, (top1, _) in self._given.items()}
        for it, (_, values) in self._given.items():
            known |= {f"{it}/{key}": list(value) for key, value in values.items()}
        mean = sum(top1 for top1, _ in self._given.values()) / len(self._names)
        self._given = {}
        self._kept.save(step, state.joint, mean, known)


class _OfOne:
    """The joint states as the checkpoints of one domain; see `place.Checkpoints`."""

    def __init__(self, kept: Checkpoints, joint: JointPlace, name: str) -> None:
        self._kept, self._joint, self._name = kept, joint, name

    def __exit__(self, *_: object) -> None:
        self._kept.__exit__()

    @property
    def latest(self) -> int | None:
        return self._kept.latest

    @property
    def best(self) -> int | None:
        return self._kept.best

    def top1(self) -> dict[int, float]:
        return {step: self._own(step)["val"][0] for step in self._kept.top1()}

    def measured(self, step: int | None) -> Measured | None:
        return None if step is None else self._own(step)

    def _own(self, step: int) -> Mapping[str, Sequence[float]]:
        start = f"{self._name}/"
        known = self._kept.measured(step) or {}
        return {key.removeprefix(start): it for key, it in known.items() if key.startswith(start)}

    def save(self, step: int, state: Any, top1: float, measured: Measured) -> None:
        self._joint.give(self._name, step, state, top1, measured)

    def load(self, step: int, like: Any) -> Share:
        return Share(self._joint.load(step, like.joint), self._name)
