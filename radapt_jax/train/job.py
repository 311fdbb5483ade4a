"""What is to be trained, and how long: settled before the first step."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import optax
from ml_collections import ConfigDict

from radapt_jax.data.load import DomainData
from radapt_jax.models.spec import ModelSpec
from radapt_jax.train import optim
from radapt_jax.train.step import TrainState


@dataclasses.dataclass(frozen=True)
class Plan:
    """What follows from a config and the size of a domain.

    `stops` are the steps after which it is evaluated and saved; `decay` has the domain's own
    decay of adapters in it.
    """

    total: int
    steps_per_epoch: float
    stops: frozenset[int]
    schedule: optax.Schedule
    decay: Mapping[str, float | None]

    @classmethod
    def of(cls, config: ConfigDict, data: DomainData) -> Plan:
        train, adapter_decay = config.train, data.domain.adapter_decay
        steps_per_epoch = len(data.splits["train"]) / train.batch_size
        total = train.steps or max(round(train.epochs * steps_per_epoch), 1)
        decay = config.optim.decay.to_dict()
        if decay["adapters"] is not None and adapter_decay is not None:
            decay["adapters"] = adapter_decay
        stops = {round((index + 1) * total / train.evals) for index in range(train.evals)}
        return cls(total, steps_per_epoch, frozenset(stops - {0}), schedule(config, total), decay)


@dataclasses.dataclass(frozen=True)
class Job:
    """A domain to train: its images, its network, its first variables, and its plan.

    `results` are kept beside those of the training.
    """

    config: ConfigDict
    data: DomainData
    spec: ModelSpec
    variables: Mapping[str, Any]
    results: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.data.domain.name

    @functools.cached_property
    def plan(self) -> Plan:
        return Plan.of(self.config, self.data)

    @functools.cached_property
    def labels(self) -> dict[str, Any]:
        """Which variable is trained as what; see `optim.labels`."""
        weights = {key: self.variables[key] for key in ("params", "adapters")}
        return optim.labels(weights, self.plan.decay, self.spec.kind)

    def optimizer(self, adapter_decay: Any = None) -> optax.GradientTransformation:
        """Return its optimiser; with another decay of adapters, if that is given."""
        plan = self.plan
        decay = dict(plan.decay)
        if adapter_decay is not None and decay["adapters"] is not None:
            decay["adapters"] = adapter_decay
        momentum = self.config.optim.momentum
        return optim.make_optimizer(self.labels, decay, plan.schedule, momentum)

    def start(self) -> TrainState:
        """Return the state before the first step, in NumPy."""
        return TrainState.on_host(self.variables, self.optimizer())


def schedule(config: ConfigDict, total_steps: int) -> optax.Schedule:
    """Return the learning rate by step."""
    entries = config.optim
    return optim.make_schedule(
        entries.schedule,
        entries.learning_rate,
        total_steps,
        drop_at=entries.drop_at,
        drop_by=entries.drop_by,
        warmup=entries.warmup,
    )
