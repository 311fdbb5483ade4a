"""What a run does: everything that its config says, read once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from radapt_jax.adapters.options import Options
from radapt_jax.adapters.registry import make_options
from radapt_jax.compress.ranks import RankRule
from radapt_jax.compress.which import dense_kinds
from radapt_jax.data.domain import Domain
from radapt_jax.data.holdout import HeldOut
from radapt_jax.data.settle import USUAL
from radapt_jax.data.spec import DataSpec
from radapt_jax.evaluation.evaluate import evaluate_family
from radapt_jax.evaluation.result import Result
from radapt_jax.family.family import Family
from radapt_jax.family.rounding import WHOLE
from radapt_jax.models.backbone import Backbone, Placement
from radapt_jax.models.spec import ModelSpec
from radapt_jax.train.distill import Distillation
from radapt_jax.train.options import TrainOptions


@dataclasses.dataclass(frozen=True)
class Compression:
    """How adapters are compressed: the kind they become ("": none is), ranks, and what joins.

    Args:
      kind: one of `compress.which.targets()`, or of `dense_kinds()`, which leaves them dense.
      ranks: chooses ranks.
      fit: of factors, one of `compress.fits.FITS`.
      moments: training images that a fit by moments looks at.
      dense: a run with the dense adapters of a domain that joins, to start from, or "".
      statistics: training images whose norms are seen anew before fine-tuning; 0: none.
      distill: learn from the dense domain while fine-tuning.
      temperature: in that; see `train.step.Lesson`.
      among: ways to choose from instead; see `curve.candidates`.
      at_most: points of validation top-1 that the one that is chosen may lose.
    """

    kind: str
    ranks: RankRule
    fit: str
    moments: int
    dense: str
    statistics: int
    distill: bool
    temperature: float
    among: str
    at_most: float


@dataclasses.dataclass(frozen=True)
class Lessons:
    """What shared weights are distilled from: a run with a teacher for each domain, and how."""

    teachers: str
    how: Distillation


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a run does; each field is an entry of configs/base.py or made of a few.

    Args:
      method: the recipe's name.
      domains: to train.
      init_from: a finished run, for its shared weights; "": start at random.
      start: of a domain, "backbone" or "random".
      source_adapter: the adapter kind that init_from must have; None: any.
      options: of training.
      backbone: with its options.
      adapter: the kind.
      adapter_options: those of the kind that are not at their defaults.
      placement: which convolutions carry adapters.
      compression: of adapters.
      lessons: what shared weights are distilled from; None: they are not.
      teachers: a run whose domains teach those of the same names; "": none does.
      temperature: in that; see `train.step.Lesson`.
      data: what holds for every domain: fields of a `DataSpec`, and the decay of adapters.
      by_domain: what is different for some, by name.
      cache: where decoded images are kept.
    """

    method: str
    domains: tuple[str, ...]
    init_from: str
    start: str
    source_adapter: str | None
    options: TrainOptions
    backbone: Backbone
    adapter: str
    adapter_options: Mapping[str, Any]
    placement: Placement
    compression: Compression
    lessons: Lessons | None
    teachers: str
    temperature: float
    data: Mapping[str, Any]
    by_domain: Mapping[str, Mapping[str, Any]]
    cache: str

    @property
    def label(self) -> str:
        """What tables call the method.

        Of the recipe that compresses, which kind, and how many bits if they are few; of the one
        that distills, with which adapters, if any; of the one that is taught, with which others
        than parallel ones.
        """
        if self.method == "distill" and self.adapter != "none":
            return f"distill_{self.adapter}"
        if self.method == "taught" and self.adapter not in ("parallel", "none"):
            return f"taught_{self.adapter}"
        kind, bits = self.compression.kind, self.options.bits
        if not kind or self.method != "joint":
            return self.method
        if bits != WHOLE:
            return f"{kind}_int{bits}"
        return f"{kind}_tuned" if kind in dense_kinds() else kind  # not the method of that name

    def network(self, basis: Options | None = None) -> ModelSpec:
        """Return the network.

        Args:
          basis: the options of the adapters whose shared variables a family has; None: it has none.
        """
        chosen = {**(basis.chosen() if basis else {}), **self.adapter_options}
        adapter = make_options(self.adapter, **chosen)
        return ModelSpec(self.backbone, adapter, self.placement)

    def of_domain(self, name: str) -> Mapping[str, Any]:
        """Return what is different for a domain ({}: nothing)."""
        return self.by_domain.get(name, {})

    def with_decay(self, domain: Domain) -> Domain:
        """Return a domain that is trained again, with the decay of adapters asked for now."""
        own, found = self.of_domain(domain.name), self.data["adapter_decay"]
        if "adapter_decay" in own:
            return dataclasses.replace(domain, adapter_decay=own["adapter_decay"])
        asked = found not in (None, USUAL["adapter_decay"])
        return dataclasses.replace(domain, adapter_decay=None) if asked else domain

    def check_same_images(self, spec: DataSpec) -> None:
        """Raise ValueError if a domain sees other images than what it is made of."""
        self._check_same(spec, "train_on", "train_fraction", "images_per_class")

    def check_teachers_images(self, spec: DataSpec, held_out: HeldOut | None) -> None:
        """Raise ValueError if a domain, its images chosen anew, sees others than its teacher.

        Args:
          spec: of the teacher's images.
          held_out: which of these validated it; None: not known.
        """
        self.check_same_images(spec)
        if spec.train_fraction < 1 or spec.images_per_class:
            self._check_same(spec, "subset")  # of the images that there are
        if self._wanted(spec)["val_fraction"] == 0 and (held_out is None or held_out.names):
            self._check_same(spec, "val_fraction")  # it would see what its teacher was judged by

    def _wanted(self, spec: DataSpec) -> Mapping[str, Any]:
        return {**self.data, **self.of_domain(spec.name)}

    def _check_same(self, spec: DataSpec, *fields: str) -> None:
        for field in fields:
            if getattr(spec, field) != (wanted := self._wanted(spec)[field]):
                raise ValueError(
                    f"domain {spec.name!r} was trained with {field} {getattr(spec, field)!r}, the "
                    f"config asks for {wanted!r}. A domain that is made of it, or learns from it, "
                    f"sees the images that it was trained on: set config.options.{spec.name}."
                    f"{field} to {getattr(spec, field)!r}."
                )

    def evaluate(self, family: Family) -> list[Result]:
        """Evaluate all domains of a family."""
        return evaluate_family(
            family,
            cache_dir=self.cache,
            or_in=self.data["dir"],
            batch_size=self.options.batch_size,
            dtype=self.options.compute_dtype,
        )
