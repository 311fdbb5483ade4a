"""Prediction with the domains of a bank, whose padded heads and stacked variables are cached."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from radapt_jax.family.bank import Bank
from radapt_jax.family.features import features, through_head
from radapt_jax.family.packed import WIDE
from radapt_jax.family.predict import (
    in_batches,
    pad_head,
    predict_all,
    predict_mixed,
    stack,
    statistics,
)
from radapt_jax.utils.programs import make_room


class Key(NamedTuple):
    """What a cached value was computed from: versions of domains, and the width of their heads."""

    versions: tuple[int, ...]
    classes: int
    stacked: bool


class Predictor:
    """Predicts with the domains of a bank, and caches their padded heads and stacked variables.

    Of domains that the bank has packed, no more are cached, and mixed in one call, than it holds
    widened.

    Args:
      params: the shared weights.
      bank: the domains.
    """

    def __init__(self, params: Mapping[str, Any], bank: Bank) -> None:
        self._params, self._bank = params, bank
        self._made: dict[Key, Any] = {}
        self._lock = threading.RLock()

    def _kept(self, key: Key, make: Callable[[], Any]) -> Any:
        """Return a cached value, computed once for the versions of its domains."""
        with self._lock:
            self._forget()
            if key in self._made:
                self._made[key] = self._made.pop(key)  # the most recently used last
                return self._made[key]
        make_room()
        made = make()
        with self._lock:
            self._made[key] = made
            self._forget()
        return made

    def _forget(self) -> None:
        """Drop values that are stale, and those of packed domains that were not used for long."""
        held, packed = self._bank.versions(), self._bank.packed_versions()
        self._made = {old: it for old, it in self._made.items() if held.issuperset(old.versions)}
        old = [key for key in self._made if not key.stacked and key.versions[0] in packed]
        for key in old[:-WIDE]:
            del self._made[key]

    def one(self, images: np.ndarray, name: str, batch_size: int) -> np.ndarray:
        """Return the class probabilities (n, classes) of one domain, for at least one image."""
        facts = self._bank.facts(name).domain
        model, variables = self._padded(name)
        found = predict_all(model, variables, images, facts, batch_size)
        return found[:, : facts.num_classes]

    def features(self, images: np.ndarray, name: str, batch_size: int) -> np.ndarray:
        """Return what a domain's head takes, (n, channels), for at least one image."""
        member = self._bank.facts(name)
        variables = through_head({"params": self._params, **self._bank.variables(name)})
        model = member.spec.served().build(variables["adapters"]["head"]["bias"].size)
        return predict_all(model, variables, images, member.domain, batch_size, features)

    def mixed(self, images: np.ndarray, names: Sequence[str], batch_size: int) -> np.ndarray:
        """Return class probabilities (n, largest class count); `names` has a domain per image."""
        classes = max((self._bank.classes(name) for name in set(names)), default=0)
        found = np.zeros((len(images), classes), np.float32)
        for group in self._groups(set(names)):
            rows = np.flatnonzero([name in group for name in names])
            size = len(rows) if len(rows) == len(images) else min(_few(len(rows)), batch_size)
            padded = np.pad(rows, (0, max(size - len(rows), 0)), mode="edge")
            if self._bank.facts(group[0]).spec.kind.filters_apart:
                own = self.one(images[padded], group[0], batch_size)
                found[rows, : own.shape[1]] = own[: len(rows)]
                continue
            model, params, bank, means, stds = self._stacked(group)
            for real, part in in_batches(padded, batch_size):
                which = np.array([group.index(names[int(row)]) for row in part])
                out = predict_mixed(model, params, bank, which, images[part], means, stds)
                found[part[:real]] = np.asarray(out)[:real, :classes]
        return found

    def _padded(self, name: str) -> tuple[Any, dict[str, Any]]:
        """Return the network and the variables of a domain, with its head padded."""
        classes = self._head_width()

        def make() -> tuple[Any, dict[str, Any]]:
            variables = {"params": self._params, **self._bank.variables(name)}
            variables["adapters"] = pad_head(variables["adapters"], classes)
            return self._bank.facts(name).spec.served().build(classes), variables

        key = Key((self._bank.version(name),), classes, stacked=False)
        return self._kept(key, make)

    def _head_width(self) -> int:
        return max(self._bank.classes(name) for name in self._bank.names)

    def _groups(self, wanted: set[str]) -> list[tuple[str, ...]]:
        """Group the domains that can share a program; return the groups with a wanted domain.

        Domains with filters of their own, whole or through their adapters, are groups of one. Where
        domains are read or widened on use, groups hold only wanted domains, and no more of them
        than are in memory at once.
        """
        groups: dict[Any, list[str]] = {}
        on_disk = self._bank.at_most is not None
        for name in sorted(wanted if on_disk else self._bank.names):
            if name not in wanted and self._bank.is_packed(name):
                continue
            member = self._bank.facts(name)
            apart = member.has_own_weights or member.spec.kind.filters_apart
            limit = self._limit(name)
            groups.setdefault((member.spec.served(), name if apart else "", limit), []).append(name)
        found = []
        for (*_, limit), group in groups.items():
            if wanted & set(group):
                most = limit or len(group)
                found += [tuple(group[at : at + most]) for at in range(0, len(group), most)]
        return found

    def _limit(self, name: str) -> int | None:
        """Return how many domains like this one are in memory at once; None: all of them."""
        most = [self._bank.at_most, WIDE if self._bank.is_packed(name) else None]
        return min((it for it in most if it is not None), default=None)

    def _stacked(self, group: tuple[str, ...]) -> tuple[Any, ...]:
        """Return network, shared weights, stacked bank, means and stds of a group of domains."""
        names, classes = list(group), self._head_width()
        versions = tuple(self._bank.version(name) for name in group)
        key = Key(versions, classes, stacked=True)
        if self._limit(group[0]) is not None:  # groups change: use few sizes, and keep only one
            names += [group[-1]] * (_few(len(group)) - len(group))
            with self._lock:
                kept = self._made.items()
                self._made = {old: it for old, it in kept if old == key or not old.stacked}

        def make() -> tuple[Any, ...]:
            variables = [{"params": self._params, **self._bank.variables(name)} for name in names]
            bank = [
                {
                    "adapters": pad_head(own["adapters"], classes),
                    "batch_stats": own["batch_stats"],
                }
                for own in variables
            ]
            facts = [statistics(self._bank.facts(name).domain) for name in names]
            means, stds = (np.stack(them) for them in zip(*facts, strict=True))
            model = self._bank.facts(group[0]).spec.served().build(classes)
            return model, variables[0]["params"], stack(bank), means, stds

        return self._kept(key, make)


def _few(count: int) -> int:
    """Return the next power of two, so that few sizes are compiled."""
    return 1 << (count - 1).bit_length()
