"""Shared weights, and the network they belong to."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from radapt_jax.adapters.base import is_adapters
from radapt_jax.adapters.none import NoAdapter
from radapt_jax.adapters.options import Options
from radapt_jax.adapters.registry import KINDS, make_options, options_from_json
from radapt_jax.data.domain import check_name
from radapt_jax.family.card import FORMAT
from radapt_jax.models.backbone import Backbone, Placement
from radapt_jax.models.registry import Backbones, backbone_from_json, make_backbone
from radapt_jax.models.resnet26 import ResNet26
from radapt_jax.models.spec import ModelSpec
from radapt_jax.utils import trees


@dataclasses.dataclass(frozen=True)
class Shared:
    """Shared weights: `params`, the backbone they belong to, and how they were trained.

    Args:
      params: the filters w, and beside them any variables of adapters that domains share.
      backbone: the network.
      source: name of the source domain, on which they were pre-trained; new domains start from its
        norms.
      adapter: the adapter kind that they were pre-trained with; "none" is an off-the-shelf
        backbone.
      basis: options of the adapters whose shared variables are in `params`: jointly compressed
        domains share a β for each adapted convolution. None: there are none.
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
        """The model spec of these `params`, including any variables of adapters that are shared.

        A basis is wherever its ranks say.
        """
        everywhere = Placement(self.backbone.stages, self.backbone.convs)
        return ModelSpec(self.backbone, self.basis or NoAdapter(), everywhere)

    def params_for(self, spec: ModelSpec) -> dict[str, Any]:
        """Return the `params` that a network needs; adapters' only if its kind shares any."""
        return self._filtered(with_basis=spec.kind.shares())

    def fingerprint(self, *, joint: bool) -> str:
        """Return the sha256 (hex) of the filters; with `joint`, of the filters and the basis."""
        return trees.fingerprint(self._filtered(with_basis=joint))

    def _filtered(self, *, with_basis: bool) -> dict[str, Any]:
        leaves, _ = trees.split(self.params, lambda path: with_basis or not is_adapters(path))
        return trees.unflatten(leaves)

    def basis_parameters(self) -> int:
        """Return how many parameters of adapters the domains share."""
        return trees.count(self.params) - trees.count(self._filtered(with_basis=False))

    def backbone_parameters(self) -> int:
        """Return how many parameters the network has without adapters and head, norms included."""
        abstract = ModelSpec(self.backbone).abstract(1)
        head = trees.count(abstract["adapters"]["head"])
        return trees.count(abstract["params"]) + trees.count(abstract["adapters"]) - head

    def card(self) -> dict[str, Any]:
        """Return the facts as JSON values; `from_card` reads them."""
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
        """Return the shared weights that a card describes, without `params`.

        Raises:
          KeyError: an entry is missing.
          TypeError, AttributeError: an entry is of the wrong type.
          ValueError: an entry has a value that is not known.
        """
        if card["source"] is not None:
            check_name(card["source"])
        if card["format"] == 1:  # always ResNet-26, and any basis from joint compression
            backbone = make_backbone(card["backbone"], width=card["width"])
            ranks = card.get("ranks", {})
            basis = make_options("joint", ranks=ranks) if ranks else None
        else:
            backbone = backbone_from_json(card["backbone"], backbones)
            basis = options_from_json(card["basis"]) if card["basis"] else None
        if card["adapter"] not in KINDS:
            raise ValueError(f"found adapter {card['adapter']!r}; expected one of {list(KINDS)}.")
        return cls({}, backbone, card["source"], card["adapter"], basis)
