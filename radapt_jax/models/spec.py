"""The description of a network, saved beside its weights."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from radapt_jax.adapters.base import Runtime, Site, carriers
from radapt_jax.adapters.none import NoAdapter
from radapt_jax.adapters.options import Options
from radapt_jax.adapters.registry import kind_of, make_options, options_from_json
from radapt_jax.models.backbone import Backbone, Placement
from radapt_jax.models.registry import Backbones, backbone_from_json
from radapt_jax.models.resnet26 import ResNet26
from radapt_jax.nn.filters import as_filter
from radapt_jax.utils import trees
from radapt_jax.utils.checks import FLAG, check

OF_FORMAT_1 = ("init", "dropout", "ranks")  # the options that kinds had then
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """Which network a domain's variables belong to, class count apart.

    Args:
      backbone: with its options.
      adapter: the adapter's options, which tell its kind.
      placement: which convolutions carry it; default: the backbone's usual ones.
      folded_norms: norms after convolutions are folded into them but for a bias (see
        `radapt_jax.fold`); evaluation only.

    Raises:
      ValueError: an unknown adapter kind, a placement or ranks of convolutions that the backbone
        does not have, or a budget of parameters that does not suffice.
    """

    backbone: Backbone = ResNet26()  # noqa: RUF009, it is frozen
    adapter: Options = NoAdapter()  # noqa: RUF009
    placement: Placement = Placement()  # noqa: RUF009
    folded_norms: bool = False

    def __post_init__(self) -> None:
        kind = kind_of(self.adapter)
        check("folded_norms", self.folded_norms, FLAG)
        object.__setattr__(self, "placement", self.backbone.placed(self.placement))
        settled = kind.settled(self.adapter, self._sites_of_any_rank)
        object.__setattr__(self, "adapter", settled)
        ranks = getattr(settled, "ranks", None)
        if isinstance(ranks, Mapping):
            self._check_ranks(ranks)

    def _check_ranks(self, ranks: Mapping[str, int]) -> None:
        """Raise ValueError for ranks of convolutions that are not there, or carry no adapter."""
        convs = [conv.path for conv in self.backbone.convolutions()]
        if unknown := sorted(set(ranks) - set(convs)):
            raise ValueError(
                f"{self.adapter.kind} adapters: found ranks of {unknown[:3]}, which are no "
                f"convolutions of this network; it has {convs[:3]}... ({len(convs)})."
            )
        placed = [site.conv for site in self._sites_of_any_rank()]
        idle = sorted(set(ranks) - set(placed))
        if idle and not (self.kind.shares() and set(ranks) & set(placed)):  # β is of all domains
            raise ValueError(
                f"{self.adapter.kind} adapters: found ranks of {idle[:3]}, which carry no adapter "
                f"here; expected some of {placed[:3]}... ({len(placed)}). Leave them out, or place "
                "adapters there: `Placement`."
            )

    def _sites_of_any_rank(self) -> list[Site]:
        return dataclasses.replace(self, adapter=make_options(self.adapter.kind, ranks=1)).sites()

    def build(self, num_classes: int, **runtime: Any) -> Any:
        """Return the network; `runtime` holds fields of `Runtime`, such as dtype.

        Raises:
          ValueError: less than one class.
        """
        if num_classes < 1:
            raise ValueError(f"found num_classes {num_classes}; expected at least 1.")
        return self.backbone.build(
            num_classes,
            self.adapter,
            self.placement,
            folded_norms=self.folded_norms,
            runtime=Runtime(**runtime),
        )

    @property
    def kind(self) -> Any:
        """The adapter's class; see `adapters.base.Adapter`."""
        return kind_of(self.adapter)

    def served(self) -> ModelSpec:
        """Return this network without what matters in training only."""
        return _served(self)

    def abstract(self, num_classes: int) -> dict[str, Any]:
        """Return the shapes and dtypes of all three collections, without computing anything."""
        one = _abstract(self, jax.config.jax_enable_x64)

        def widen(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((*leaf.shape[:-1], num_classes), leaf.dtype)

        head = jax.tree.map(widen, one["adapters"]["head"])
        return {**one, "adapters": {**one["adapters"], "head": head}}

    def sites(self) -> list[Site]:
        """Return the convolutions that carry an adapter, from the image on."""
        abstract = self.abstract(1)
        filters = trees.flatten(abstract["params"])
        carrying = carriers(trees.flatten(abstract["adapters"]))
        found = []
        for conv in self.backbone.convolutions():
            if conv.path in carrying:
                kernel = filters[f"{conv.path}/kernel"]
                shape = jax.eval_shape(functools.partial(as_filter, axes=conv.axes), kernel).shape
                size, _, inputs, outputs = shape
                found.append(Site(conv.path, size, inputs, outputs, conv.groups))
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the facts as JSON values; `from_json` undoes it."""
        return {
            "backbone": self.backbone.to_json(),
            "adapter": self.adapter.to_json(),
            "placement": dataclasses.asdict(self.placement),
            "folded_norms": self.folded_norms,
        }

    @classmethod
    def from_json(cls, facts: Mapping[str, Any], backbones: Backbones | None = None) -> ModelSpec:
        """Undo `to_json`; facts of cards of format 1 are read, too.

        Raises:
          ValueError, KeyError, TypeError, AttributeError: they describe no network.
        """
        if isinstance(facts["backbone"], str):
            return _of_format_1(facts)
        if unknown := sorted(facts.keys() - {field.name for field in dataclasses.fields(cls)}):
            raise TypeError(f"unknown entries of a network: {unknown}")
        placed = {name: it and tuple(it) for name, it in facts["placement"].items()}
        return cls(
            backbone=backbone_from_json(facts["backbone"], backbones),
            adapter=options_from_json(facts["adapter"]),
            placement=Placement(**placed),
            folded_norms=facts["folded_norms"],
        )


def _of_format_1(facts: Mapping[str, Any]) -> ModelSpec:
    """Return what a card of format 1 describes; its networks were ResNet-26."""
    if facts["backbone"] != ResNet26.name:
        raise ValueError(f"found backbone {facts['backbone']!r}; expected {ResNet26.name!r}.")
    options = [it.name for it in dataclasses.fields(make_options(facts["adapter"]))]
    found = {"init": facts["adapter_init"], **facts, "dropout": tuple(facts["dropout"])}
    return ModelSpec(
        backbone=ResNet26(facts["width"]),
        adapter=make_options(
            facts["adapter"], **{it: found[it] for it in options if it in OF_FORMAT_1}
        ),
        placement=Placement(tuple(facts["stages"]), tuple(facts["convs"])),
        folded_norms=facts["folded_norms"],
    )


@functools.lru_cache(maxsize=1024)
def _served(spec: ModelSpec) -> ModelSpec:
    return dataclasses.replace(spec, adapter=spec.adapter.served())


@functools.lru_cache(maxsize=64)
def _abstract(spec: ModelSpec, wide: bool) -> dict[str, Any]:
    """Trace a network of one class; a tenth of a second or more.

    `wide` is whether JAX makes float64 now, which dtypes depend on; it tells cached traces apart.
    """
    model, side = spec.build(1), spec.backbone.example_side()
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    return jax.eval_shape(lambda key, x: model.init(key, x, train=False), jax.random.key(0), images)
