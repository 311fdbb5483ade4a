"""Prediction with the domains of a bank: of one, or of several mixed in a batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from radapt_jax import serving
from radapt_jax.adapters import LOW_RANK_KINDS
from radapt_jax.bank import Bank
from radapt_jax.member import Member
from radapt_jax.models import ModelSpec
from radapt_jax.programs import make_room


class Predictor:
    """Keeps what prediction makes of a domain: heads padded, and domains of a kind stacked.

    Args:
      params: the shared weights.
      bank: the domains.
    """

    def __init__(self, params: Mapping[str, Any], bank: Bank) -> None:
        self._params, self._bank = params, bank
        self._made: dict[tuple[str, ...], Any] = {}  # by the domains that are in it

    def forget(self, name: str) -> None:
        """Drop what was made of a domain."""
        self._made = {names: made for names, made in self._made.items() if name not in names}

    def clear(self) -> None:
        """Drop everything."""
        self._made = {}

    def one(self, images: np.ndarray, name: str, batch_size: int) -> np.ndarray:
        """Return the class probabilities of one domain, at least one image."""
        facts = self._bank[name].domain
        model, variables = self._padded(name)
        found = serving.predict_all(model, variables, images, facts, batch_size)
        return found[:, : facts.num_classes]

    def mixed(self, images: np.ndarray, names: Sequence[str], batch_size: int) -> np.ndarray:
        """Return the class probabilities of images that each have a domain of their own."""
        classes = max((self._bank.classes(name) for name in set(names)), default=0)
        found = np.zeros((len(images), classes), np.float32)
        for group in self._groups(set(names)):
            rows = np.flatnonzero([name in group for name in names])
            size = len(rows) if len(rows) == len(images) else min(_few(len(rows)), batch_size)
            padded = np.pad(rows, (0, max(size - len(rows), 0)), mode="edge")
            model, params, bank, means, stds = self._stacked(group)
            for real, part in serving.in_batches(padded, batch_size):
                which = np.array([group.index(names[int(row)]) for row in part])
                out = serving.predict_mixed(model, params, bank, which, images[part], means, stds)
                found[part[:real]] = np.asarray(out)[:real, :classes]
        return found

    def _padded(self, name: str) -> tuple[Any, dict[str, Any]]:
        """Return the network and the variables of a domain with its head padded."""
        member = self._bank[name]
        if (name,) not in self._made:
            make_room()
            classes = self._head_width()
            variables = {"params": self._params, **self._bank.variables(name)}
            variables["adapters"] = serving.pad_head(variables["adapters"], classes)
            self._made[(name,)] = _served_spec(member).build(classes), variables
        return self._made[(name,)]

    def _head_width(self) -> int:
        return max(self._bank.classes(name) for name in self._bank.names)

    def _groups(self, wanted: set[str]) -> list[tuple[str, ...]]:
        """Split the domains into those that can share a program; keep groups with wanted ones.

        Where domains are read when they are used, groups are of wanted ones alone, and no larger
        than what is held in memory.
        """
        groups: dict[Any, list[str]] = {}
        limit = self._bank.at_most
        for name in sorted(self._bank.names if limit is None else wanted):
            member = self._bank[name]
            own = name if member.has_own_weights else ""
            groups.setdefault((str(_served_spec(member)), own), []).append(name)
        found = [tuple(group) for group in groups.values() if wanted & set(group)]
        if limit is None:
            return found
        return [group[at : at + limit] for group in found for at in range(0, len(group), limit)]

    def _stacked(self, group: tuple[str, ...]) -> tuple[Any, ...]:
        """Return network, shared weights, stacked bank, means and stds of a group of domains."""
        key, names = ("several", *group), list(group)
        if key in self._made:
            return self._made[key]
        if self._bank.at_most is not None:  # groups come and go: few sizes, and one at a time
            names += [group[-1]] * (_few(len(group)) - len(group))
            self._made = {known: made for known, made in self._made.items() if len(known) == 1}
        make_room()
        classes = self._head_width()
        variables = [{"params": self._params, **self._bank.variables(name)} for name in names]
        bank = [
            {
                "adapters": serving.pad_head(own["adapters"], classes),
                "batch_stats": own["batch_stats"],
            }
            for own in variables
        ]
        statistics = [serving.statistics(self._bank[name].domain) for name in names]
        means, stds = (np.stack(them) for them in zip(*statistics, strict=True))
        model = _served_spec(self._bank[group[0]]).build(classes)
        made = model, variables[0]["params"], serving.stack(bank), means, stds
        self._made[key] = made
        return made


def _few(count: int) -> int:
    """Return the next power of two: few sizes to compile."""
    return 1 << (count - 1).bit_length()


def _served_spec(member: Member) -> ModelSpec:
    """Return a member's network without what matters in training only."""
    ranks = member.spec.ranks if member.spec.adapter in LOW_RANK_KINDS else 0.5
    return dataclasses.replace(member.spec, dropout=(0.0, 0.0), adapter_init="zeros", ranks=ranks)
