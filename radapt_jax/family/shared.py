"""Shared weights, and the network they are of."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from radapt_jax.adapters.base import Options, is_adapters
from radapt_jax.adapters.none import NoAdapter
from radapt_jax.adapters.registry import KINDS, make_options, options_from_json
from radapt_jax.data.domain import check_name
from radapt_jax.family.card import FORMAT
from radapt_jax.models.backbone import Backbone
from radapt_jax.models.registry import Backbones, backbone_from_json, make_backbone
from radapt_jax.models.resnet26 import ResNet26
from radapt_jax.models.spec import ModelSpec
from radapt_jax.utils import trees


@dataclasses.dataclass(frozen=True)
class Shared:
    """Shared weights: `params`, the backbone they are of, and how they came about.

    Args:
      params: the filters w, and the shared variables of adapters beside them.
      backbone: the network.
      source: the domain that they were pre-trained on; its norms start new domains.
      adapter: the adapter kind that they were pre-trained with; "none" is an off-the-shelf
        backbone.
      basis: the options of the adapters whose shared variables are in `params`, as those of
        jointly compressed domains, which share a β for each adapted convolution; None: none are.
    """

    params: Mapping[str, Any]
    backbone: Backbone = ResNet26()  # noqa: RUF009, it is frozen
    source: str | None = None
    adapter: str = "none"
    basis: Options | None = None

    def __repr__(self) -> str:
        basis = f", {self.basis.kind} basis" if self.basis else ""
        return (
            f"Shared({self.backbone}, source {self.source!r}, adapter {self.adapter!r}{basis}, "
            f"{trees.count(self.params):,} parameters)"
        )

    @property
    def spec(self) -> ModelSpec:
        """The network whose `params` these are: with shared variables of adapters, if there are."""
        return ModelSpec(self.backbone, self.basis or NoAdapter())

    def params_for(self, spec: ModelSpec) -> dict[str, Any]:
        """Return the `params` that a network needs: of adapters only if its kind shares any."""
        return self._filtered(with_basis=spec.kind.shares())

    def fingerprint(self, *, joint: bool) -> str:
        """Return the sha256 of the filters, and with `joint` of the basis beside them."""
        return trees.fingerprint(self._filtered(with_basis=joint))

    def _filtered(self, *, with_basis: bool) -> dict[str, Any]:
        leaves, _ = trees.split(self.params, lambda path: with_basis or not is_adapters(path))
        return trees.unflatten(leaves)

    def basis_parameters(self) -> int:
        """Return the parameters of adapters that domains share; 0 without."""
        return trees.count(self.params) - trees.count(self._filtered(with_basis=False))

    def backbone_parameters(self) -> int:
        """Return the parameters of the network without adapters, its norms in and its head out."""
        abstract = ModelSpec(self.backbone).abstract(1)
        head = trees.count(abstract["adapters"]["head"])
        return trees.count(abstract["params"]) + trees.count(abstract["adapters"]) - head

    def card(self) -> dict[str, Any]:
        """Return the facts as JSON values; `from_card` undoes it."""
        return {
            "format": FORMAT,
            "backbone": self.backbone.to_json(),
            "source": self.source,
            "adapter": self.adapter,
            "basis": self.basis.to_json() if self.basis else None,
            "sha256": trees.fingerprint(self.params),
        }

    @classmethod
    def from_card(cls, card: Mapping[str, Any], backbones: Backbones | None = None) -> Shared:
        """Return what a card describes, without `params`.

        Raises:
          KeyError, TypeError, AttributeError, ValueError: it describes no shared weights.
        """
        if card["source"] is not None:
            check_name(card["source"])
        if card["format"] == 1:  # its networks were ResNet-26, its bases jointly compressed
            backbone = make_backbone(card["backbone"], width=card["width"])
            ranks = card.get("ranks", {})
            basis = make_options("joint", ranks=ranks) if ranks else None
        else:
            backbone = backbone_from_json(card["backbone"], backbones)
            basis = options_from_json(card["basis"]) if card["basis"] else None
        if card["adapter"] not in KINDS:
            raise ValueError(f"found adapter {card['adapter']!r}; expected one of {list(KINDS)}.")
        return cls({}, backbone, card["source"], card["adapter"], basis)
