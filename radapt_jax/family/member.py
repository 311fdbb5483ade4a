"""One domain of a family: its variables, and the facts that are saved beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from radapt_jax.data.domain import Domain
from radapt_jax.data.holdout import HeldOut, Record
from radapt_jax.data.spec import DataSpec
from radapt_jax.family import bits
from radapt_jax.family.card import FORMAT, check_card
from radapt_jax.family.rounding import Rounding, rounded
from radapt_jax.models.registry import Backbones
from radapt_jax.models.spec import ModelSpec
from radapt_jax.utils import trees

FOUR_BITS = Rounding()


@dataclasses.dataclass(frozen=True)
class Member:
    """What a family holds of one domain.

    Args:
      domain: classes, normalisation, crop.
      spec: the model spec, which is the network without its class count.
      variables: `adapters` and `batch_stats`, and `params` if the domain has weights of its own
        (methods finetune and scratch).
      method: how it was trained, for tables.
      shared: fingerprint of the shared weights it was trained on (`Shared.fingerprint`); None:
        those of the family it is added to.
      data: the data spec, which says where its images are; None: not known.
      images: image counts by split.
      results: top-1 in percent by split, and other results of training.
      held_out: which images of train were held out for validation; None: not known.
      rounding: what the variables are rounded to, and packed as in a file; None: they are not.
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
    rounding: Rounding | None = None

    def __post_init__(self) -> None:
        """A network without batch norms has no statistics, which files do not tell from none."""
        if "adapters" in self.variables and "batch_stats" not in self.variables:
            object.__setattr__(self, "variables", {**self.variables, "batch_stats": {}})

    @property
    def record(self) -> Record:
        """What is known about the images it was trained on."""
        return Record(self.held_out, self.images)

    def __repr__(self) -> str:
        return (
            f"Member({self.domain.name!r}, {self.domain.num_classes} classes, "
            f"{self.spec.backbone}, adapter {self.spec.adapter.kind!r}, "
            f"{self.parameters():,} parameters)"
        )

    @property
    def is_joint(self) -> bool:
        """Whether its adapters have variables that all domains of the family share."""
        return self.spec.kind.shares()

    @property
    def has_own_weights(self) -> bool:
        """Whether it has its own copy of the weights that other domains share."""
        return "params" in self.variables

    def parameters(self, *, head: bool = True) -> int:
        """Return how many parameters belong to this domain only, without batch statistics.

        32 bits of a variable that is binary count as one.
        """
        leaves, _ = trees.split(
            {name: tree for name, tree in self.variables.items() if name != "batch_stats"},
            lambda path: head or not path.startswith("adapters/head/"),
        )
        return bits.count(self.spec, leaves)

    def rounded(self, rounding: Rounding = FOUR_BITS) -> Member:
        """Return the same domain with its variables rounded, so that its file is small.

        Weights of its own stay as they are. `results` are left out: they are of other values.

        Raises:
          ValueError: a value is too large for float16.
        """
        variables = rounded_variables(self.spec, self.variables, rounding)
        return dataclasses.replace(self, variables=variables, rounding=rounding, results={})

    def changed(self, **collections: Any) -> Member:
        """Return the same domain with other collections, which are not rounded any more."""
        variables = {**self.variables, **collections}
        return dataclasses.replace(self, variables=variables, rounding=None)

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
        """Return the facts as JSON values; `from_card` reads them."""
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
            "rounding": dataclasses.asdict(self.rounding) if self.rounding else None,
        }

    @classmethod
    def from_card(
        cls, card: Mapping[str, Any], where: str, *, backbones: Backbones | None = None
    ) -> Member:
        """Return the member that a card describes, with empty collections.

        Args:
          card: the facts.
          where: the card is, for messages.
          backbones: your own networks, by name.

        Raises:
          ValueError: the card lacks an entry, or has one of the wrong type.
        """
        try:
            check_card(card)
            held_out, rounding = card.get("held_out"), card.get("rounding")  # older cards have none
            return cls(
                domain=Domain.from_json(card["domain"]),
                spec=ModelSpec.from_json(card["network"], backbones),
                variables={name: {} for name in card["collections"]},
                method=card["method"],
                shared=card["shared"],
                data=DataSpec(**card["data"]) if card["data"] else None,
                images=card["images"],
                results=card["results"],
                held_out=None if held_out is None else HeldOut.from_json(held_out),
                rounding=None if rounding is None else Rounding(**{"even": False, **rounding}),
            )
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"{where} describes no domain: {error!r}.") from error

    def verified(self, sha256: str, where: str) -> Member:
        """Return the member itself, after checking the fingerprint of its variables.

        Raises:
          ValueError: they have another fingerprint than `sha256`.
        """
        found = trees.fingerprint(self.variables)
        if found != sha256:
            raise ValueError(
                f"{where} is damaged: its values have sha256 {found[:12]}..., its card says "
                f"{str(sha256)[:12]}.... Restore it from a copy, or train it again."
            )
        return self


def rounded_variables(
    spec: ModelSpec, variables: trees.Variables, rounding: Rounding
) -> dict[str, Any]:
    """Return a domain's variables rounded; of binary ones the bits, and `params` as they are.

    Raises:
      ValueError: a value is too large for float16.
    """

    def form(path: str, leaf: Any) -> Any:
        if bits.is_binary(spec, path):
            return leaf
        return rounded(leaf, rounding.form_of(path, tuple(leaf.shape)))

    leaves = trees.flatten(bits.kept(spec, variables))
    made = trees.unflatten({path: form(path, it) for path, it in leaves.items()})
    return {name: made.get(name, {}) for name in variables}
