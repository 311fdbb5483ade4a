"""What is to be trained, and how long: settled before the first step."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import optax

from radapt_jax.adapters.base import carriers, is_adapters
from radapt_jax.data.load import DomainData
from radapt_jax.evaluation.statistics import batch_statistics
from radapt_jax.evaluation.training_images import IMAGES
from radapt_jax.family import bits
from radapt_jax.family.member import Member, rounded_variables
from radapt_jax.family.rounding import Rounding, rounding_of
from radapt_jax.models.spec import ModelSpec
from radapt_jax.train import optim
from radapt_jax.train.distill import Teacher
from radapt_jax.train.options import TrainOptions
from radapt_jax.train.step import TrainState
from radapt_jax.utils import trees
from radapt_jax.utils.trees import Variables

TEMPERATURE = 2.0


@dataclasses.dataclass(frozen=True)
class Plan:
    """What follows from the options and the size of a domain.

    `evaluations` are the steps after which it is evaluated and saved; `decay` has the domain's own
    decay of adapters in it.
    """

    total: int
    steps_per_epoch: float
    evaluations: frozenset[int]
    schedule: optax.Schedule
    decay: Mapping[str, float | None]

    @classmethod
    def of(cls, options: TrainOptions, data: DomainData) -> Plan:
        adapter_decay, evals = data.domain.adapter_decay, options.evals
        steps_per_epoch = len(data.splits["train"]) / options.batch_size
        total = options.steps or max(round(options.epochs * steps_per_epoch), 1)
        decay = dict(options.decay)
        if decay["adapters"] is not None and adapter_decay is not None:
            decay["adapters"] = adapter_decay
        evaluations = {round((index + 1) * total / evals) for index in range(evals)}
        return cls(total, steps_per_epoch, frozenset(evaluations - {0}), options.rate(total), decay)


@dataclasses.dataclass(frozen=True)
class Job:
    """A domain to train: how, its images, its network, its first variables, and its plan.

    `method` is what tables call it; `results` are kept beside those of the training. A `teacher`
    that sees the same images is learnt from, at a `temperature`; see `step.Lesson`.
    """

    options: TrainOptions
    data: DomainData
    spec: ModelSpec
    variables: Variables
    method: str = ""
    results: Mapping[str, float] = dataclasses.field(default_factory=dict)
    teacher: Teacher | None = None
    temperature: float = TEMPERATURE

    @property
    def name(self) -> str:
        return self.data.domain.name

    @functools.cached_property
    def plan(self) -> Plan:
        return Plan.of(self.options, self.data)

    @functools.cached_property
    def labels(self) -> dict[str, Any]:
        """Which variable is trained as what; see `optim.labels`."""
        weights = {key: self.variables[key] for key in ("params", "adapters")}
        spec = self.spec
        return optim.labels(weights, self.plan.decay, spec.kind, spec.adapter.decay)

    @property
    def share(self) -> float:
        """Parameters of the domain's adapters over those of the filters that carry them."""
        adapters, _ = trees.split(self.variables["adapters"], is_adapters)
        filters = trees.flatten(self.variables["params"])
        beside = sum(filters[f"{conv}/kernel"].size for conv in carriers(adapters))
        return bits.count(self.spec, adapters) / beside if beside else 0.0

    def optimizer(self, adapter_decay: Any = None) -> optax.GradientTransformation:
        """Return its optimiser; with another decay of adapters, if that is given."""
        plan = self.plan
        decay = dict(plan.decay)
        if adapter_decay is not None and decay["adapters"] is not None:
            decay["adapters"] = adapter_decay
        decay = optim.decays_of(decay, self.spec.adapter.decay)
        return optim.make_optimizer(
            self.labels,
            decay,
            plan.schedule,
            self.options.momentum,
            name=self.options.optimizer,
            adapters=self.options.adapter_rule(plan.total),
            average=self.options.average and max(self.options.average * plan.total, 1),
        )

    def start(self) -> TrainState:
        """Return the state before the first step, in NumPy."""
        return TrainState.on_host(self.variables, self.optimizer())

    def settled(self, state: TrainState) -> TrainState:
        """Return a first state with the norm statistics of the domain, where views are kept."""
        if not self.options.views or not trees.flatten(state.batch_stats):
            return state
        split = self.data.splits["train"]
        stats = batch_statistics(self.spec, self.data.domain, state.variables, split)
        return state.replace(batch_stats=stats)

    def averaged(self, state: TrainState) -> dict[str, Any]:
        """Return a state's variables with the mean of its weights, and norm statistics of that."""
        weights = trees.to_numpy(optim.averaged(state.weights, state.opt_state))
        variables = {**weights, "batch_stats": trees.to_numpy(state.batch_stats)}
        if trees.flatten(state.batch_stats):
            domain, split = self.data.domain, self.data.splits["train"]
            variables["batch_stats"] = batch_statistics(
                self.spec, domain, self.kept(variables), split, count=IMAGES
            )
        return variables

    def member(
        self, variables: Variables, results: Mapping[str, float], *, shares: bool = False
    ) -> Member:
        """Return what becomes of the domain in a family.

        Args:
          variables: after training; see `kept`.
          results: of the training.
          shares: filters that were trained are the family's shared weights, and not its own.
        """
        own = self.options.trains_filters and not shares
        kept = {key: it for key, it in self.kept(variables).items() if own or key != "params"}
        return Member(
            domain=self.data.domain,
            spec=self.spec,
            variables=kept,
            method=self.method,
            data=self.data.spec,
            images={split: len(part) for split, part in self.data.splits.items()},
            results={**self.results, **results},
            held_out=self.data.held_out,
            rounding=self.rounding,
        )

    @property
    def rounding(self) -> Rounding | None:
        """What the trained domain is rounded to."""
        return rounding_of(self.options.bits)

    def kept(self, variables: Variables) -> Variables:
        """Return what a trained domain keeps: bits of binary variables, the others rounded."""
        own = bits.kept(self.spec, variables)
        return own if self.rounding is None else rounded_variables(self.spec, own, self.rounding)
