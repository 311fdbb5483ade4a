"""One domain of a family: its variables, and the facts that are saved beside them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from radapt_jax import trees
from radapt_jax.data.cutting import HeldOut, Record
from radapt_jax.data.loading import DataSpec
from radapt_jax.domains import Domain
from radapt_jax.models import ModelSpec

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Member:
    """What a family holds of one domain.

    Args:
      domain: classes, normalisation, crop.
      spec: the network, class count apart.
      variables: `adapters` and `batch_stats`, and `params` where the domain has shared weights of
        its own (methods finetune and scratch).
      method: how it was trained, for tables.
      shared: fingerprint of the shared weights it was trained on (`Shared.fingerprint`); None:
        of those it is added to.
      data: where its images are, if they are known.
      images: number of images by split.
      held_out: which images of train its training held out for validation; None: not known.
      results: top-1 in percent by split, and whatever else training found.
    """

    domain: Domain
    spec: ModelSpec
    variables: Mapping[str, Any]
    method: str = ""
    shared: str | None = None
    data: DataSpec | None = None
    images: Mapping[str, int] = dataclasses.field(default_factory=dict)
    results: Mapping[str, float] = dataclasses.field(default_factory=dict)
    held_out: HeldOut | None = None

    @property
    def record(self) -> Record:
        """What is known of the images it was trained on."""
        return Record(self.held_out, self.images)

    def __repr__(self) -> str:
        return (
            f"Member({self.domain.name!r}, {self.domain.num_classes} classes, "
            f"{self.spec.backbone}, width {self.spec.width:g}, adapter {self.spec.adapter!r}, "
            f"{self.parameters():,} parameters)"
        )

    @property
    def is_joint(self) -> bool:
        """Whether its adapters stand on the family's shared β as well as on the filters."""
        return self.spec.adapter == "joint"

    @property
    def has_own_weights(self) -> bool:
        return "params" in self.variables

    def parameters(self, *, head: bool = True) -> int:
        """Return the number of parameters that are this domain's alone (statistics apart)."""
        leaves, _ = trees.split(
            {name: tree for name, tree in self.variables.items() if name != "batch_stats"},
            lambda path: head or not path.startswith("adapters/head/"),
        )
        return trees.count(trees.unflatten(leaves))

    def abstract(self) -> dict[str, Any]:
        """Return the shapes and dtypes that `variables` must have."""
        return {
            name: tree
            for name, tree in self.spec.abstract(self.domain.num_classes).items()
            if name in self.variables
        }

    def check(self) -> None:
        """Raise ValueError unless the variables are those of `spec` with this class count."""
        names = set(self.variables)
        if not {"adapters", "batch_stats"} <= names <= {"params", "adapters", "batch_stats"}:
            raise ValueError(
                f"domain {self.domain.name!r}: found collections {sorted(names)}; expected "
                "adapters and batch_stats, and params where the domain has weights of its own."
            )
        trees.check_like(self.variables, self.abstract(), f"domain {self.domain.name!r}")

    def card(self) -> dict[str, Any]:
        """Return the facts as JSON values; `from_card` undoes it."""
        return {
            "format": FORMAT,
            "domain": self.domain.to_json(),
            "network": self.spec.to_json(),
            "method": self.method,
            "shared": self.shared,
            "collections": sorted(self.variables),
            "sha256": trees.fingerprint(self.variables),
            "parameters": self.parameters(),
            "data": dataclasses.asdict(self.data) if self.data else None,
            "images": dict(self.images),
            "held_out": self.held_out.to_json() if self.held_out else None,
            "results": dict(self.results),
        }

    @classmethod
    def from_card(cls, card: Mapping[str, Any], variables: Mapping[str, Any], where: str) -> Member:
        """Return the member that a card describes.

        Raises:
          ValueError: the card lacks an entry or has one of the wrong kind.
        """
        try:
            _check_card(card)
            held_out = card.get("held_out")  # older cards have none
            return cls(
                domain=Domain.from_json(card["domain"]),
                spec=ModelSpec.from_json(card["network"]),
                variables=variables,
                method=card["method"],
                shared=card["shared"],
                data=DataSpec(**card["data"]) if card["data"] else None,
                images=card["images"],
                results=card["results"],
                held_out=None if held_out is None else HeldOut.from_json(held_out),
            )
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"{where} describes no domain: {error!r}.") from error

    def verified(self, sha256: str, where: str) -> Member:
        """Return the member itself.

        Raises:
          ValueError: its variables do not have this fingerprint.
        """
        found = trees.fingerprint(self.variables)
        if found != sha256:
            raise ValueError(
                f"{where} is damaged: its values have sha256 {found[:12]}..., its card says "
                f"{str(sha256)[:12]}.... Restore it from a copy, or train it again."
            )
        return self


def _check_card(card: Mapping[str, Any]) -> None:
    """Raise TypeError for an entry of the wrong kind, KeyError for one that is missing."""
    kinds = {"method": str, "images": Mapping, "results": Mapping, "sha256": str}
    wrong = [key for key, kind in kinds.items() if not isinstance(card[key], kind)]
    has_own = "params" in card["collections"]
    shared = card["shared"]
    if not ((has_own and shared is None) or (isinstance(shared, str) and len(shared) == 64)):
        wrong.append("shared")
    numbers = [*card["images"].values(), *card["results"].values()]
    if wrong or not all(isinstance(number, int | float) for number in numbers):
        raise TypeError(f"entries of the wrong kind: {wrong or 'images, results'}")


def parse_card(text: str | bytes, where: str) -> dict[str, Any]:
    """Return a card from its JSON text.

    Raises:
      ValueError: it is no JSON object, or of another format version.
    """
    try:
        card = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{where} holds no readable card: {error}.") from error
    except RecursionError as error:
        raise ValueError(f"{where} holds no readable card: nested too deeply.") from error
    found = card.get("format") if isinstance(card, dict) else None
    if found != FORMAT:
        raise ValueError(f"{where} has format {found}; this version of radapt_jax reads {FORMAT}.")
    if not isinstance(card.get("sha256"), str) or not _is_names(card.get("collections", [])):
        raise ValueError(f"{where} describes no domain or shared weights: no sha256, collections.")
    return card


def _is_names(found: Any) -> bool:
    return isinstance(found, list) and all(isinstance(name, str) for name in found)
