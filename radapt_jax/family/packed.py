"""A rounded domain in the memory of its file: a few bits a value, widened when it is used."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from radapt_jax.family import packing
from radapt_jax.family.member import Member
from radapt_jax.utils import trees

WIDE = 32  # rounded domains that are held widened, the most recently used


class Packed(NamedTuple):
    """A domain of which the variables are packed.

    Args:
      facts: the domain, with empty collections.
      stored: its variables, as a file has them.
    """

    facts: Member
    stored: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, member: Member) -> Packed:
        """Pack a rounded domain.

        Raises:
          ValueError: its values are not rounded.
        """
        empty: dict[str, dict[str, np.ndarray]] = {name: {} for name in member.variables}
        facts = dataclasses.replace(member, variables=empty)
        return cls(facts, packing.packed(member))

    def widened(self) -> Member:
        """Return the domain with its variables in float32, as it was packed, bit for bit."""
        expected = trees.flatten(self.facts.abstract())
        leaves = trees.unflatten(packing.unpacked(self.facts, expected, self.stored))
        variables = {name: leaves.get(name, {}) for name in self.facts.variables}
        return dataclasses.replace(self.facts, variables=variables)
