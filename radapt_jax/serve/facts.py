"""What a server knows of a domain without its variables: for answers, and to choose programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from radapt_jax.data.domain import Domain
from radapt_jax.family import checkpoint
from radapt_jax.family.family import Family
from radapt_jax.family.member import Member
from radapt_jax.models.registry import Backbones
from radapt_jax.models.spec import ModelSpec

KEPT_BACK = ("data", "held_out", "domain", "network")  # paths and names of images, and what follows


class Key(NamedTuple):
    """What domains have in common that the same programs compute.

    Args:
      spec: their network.
      side: of their images, in pixels.
      apart: they cannot be mixed in a batch, as they have filters of their own.
    """

    spec: ModelSpec
    side: int
    apart: bool


@dataclasses.dataclass(frozen=True)
class Facts:
    """A domain that is served.

    Args:
      domain: classes, normalisation, crop.
      key: which programs compute it.
      card: its card, see `Member.card`.
    """

    domain: Domain
    key: Key
    card: Mapping[str, Any]

    @classmethod
    def of(cls, member: Member, card: Mapping[str, Any]) -> Facts:
        """Return the facts of a member, with or without variables, and of its card."""
        apart = member.has_own_weights or member.spec.kind.filters_apart
        return cls(member.domain, Key(member.spec.served(), member.domain.size, apart), card)

    @property
    def name(self) -> str:
        return self.domain.name

    @property
    def version(self) -> str:
        """The sha256 of its variables."""
        return str(self.card["sha256"])

    def public(self) -> dict[str, Any]:
        """Return what anybody may read of the card: nothing of where its images are."""
        return {name: it for name, it in self.card.items() if name not in KEPT_BACK}

    def same(self, other: Facts) -> bool:
        """Whether both answer alike: of the same variables, classes, normalisation and crop."""
        mine, others = ((it.version, it.domain, it.key) for it in (self, other))
        return mine == others

    def sees_as(self, other: Facts) -> bool:
        """Whether images are resized and cropped for both in the same way."""
        mine, others = self.domain, other.domain
        return (mine.size, mine.resizing) == (others.size, others.resizing)


def read_facts(
    family: Family, workdir: str | Path, backbones: Backbones | None = None
) -> dict[str, Facts]:
    """Return the facts of every domain of a family, by name.

    They are of the domains as they are in memory, since a training may change those on disk; with
    `at_most` they are read from the cards, and no variables are.

    Raises:
      ValueError: a card is damaged.
    """
    if family.at_most is None:
        return {name: Facts.of(family[name], family[name].card()) for name in family}
    found = {}
    for name in family:
        card, member = checkpoint.read_member_card(workdir, name, backbones)
        found[name] = Facts.of(member, card)
    return found
