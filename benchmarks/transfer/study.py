"""What a study of transfer compares: backbones, domains and ways to train, over seeds."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import radapt_jax as rj


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to train a domain.

    Args:
      adapter: its options tell its kind.
      placement: of the adapter.
      decay: weight decay where it is not the usual one; None freezes.
      options: of training, where they are not the usual ones.
      tuned: the option whose value is chosen, a learning rate.
      rates: to choose from, on validation images and the first seed.
    """

    adapter: rj.Options = rj.NoAdapter()  # noqa: RUF009, it is frozen
    placement: rj.Placement = rj.Placement()  # noqa: RUF009
    decay: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tuned: str = "learning_rate"
    rates: tuple[float, ...] = (0.1, 0.01)


METHODS = {
    "linear": Method(decay={"adapters": None, "norms": None}),
    "norm": Method(decay={"adapters": None}),
    "series": Method(rj.Series()),
    "parallel": Method(rj.Parallel()),
    "low_rank": Method(rj.LowRank()),
    "finetune": Method(decay={"filters": 5e-4}),
}


@dataclasses.dataclass(frozen=True)
class Study:
    """Every method on every domain from every backbone, over seeds, at one size and length.

    Args:
      backbones: functions by name that return a family to train on.
      domains: by name, where the images are and what is particular to them: the options of
        `radapt_jax.data.load.load_domain`.
      methods: by name.
      seeds: of fresh variables and batches; the images are the same.
      size: of the images, in pixels; those that are cropped at random are 9/8 of it first.
      steps: of a training, with a cosine schedule.
      batch_size: images a step.
      tuned_on: the domain, first of all, on which rates are chosen for all; "": each on its own.
    """

    backbones: Mapping[str, Callable[[], rj.Family]]
    domains: Mapping[str, Mapping[str, Any]]
    methods: Mapping[str, Method]
    seeds: tuple[int, ...] = (0, 1, 2)
    size: int = 32
    steps: int = 80
    batch_size: int = 32
    tuned_on: str = ""

    def places(self) -> list[dict[str, Any]]:
        """Return what is trained, in order: all of a seed come before the next one."""
        names = ("seed", "backbone", "domain", "method")
        values = itertools.product(self.seeds, self.backbones, self.domains, self.methods)
        return [dict(zip(names, it, strict=True)) for it in values]
