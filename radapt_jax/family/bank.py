"""The domains of a family: all in memory, or only the most recently used of those on disk."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from radapt_jax.family.member import Member
from radapt_jax.family.packed import WIDE, Packed


class Wide(NamedTuple):
    """A domain with its variables, and these as JAX arrays."""

    member: Member
    arrays: dict[str, Any]

    @classmethod
    def of(cls, held: Member | Packed) -> Wide:
        member = held.widened() if isinstance(held, Packed) else held
        return cls(member, jax.tree.map(jnp.asarray, dict(member.variables)))


class Bank:
    """Domains by name; see `open` for those that are on disk. Callers check that a name exists.

    Domains that are rounded are packed as in their files; up to `packed.WIDE` of them, the most
    recently used, are widened as well.

    Every domain in memory has a version that is unique in this bank. Whatever is computed from a
    domain is kept under its version, and is stale once that version is no longer in memory.
    """

    at_most: int | None = None  # domains from disk that are held in memory; None: all
    _read: Callable[[str], Member]

    def __init__(self) -> None:
        self._versions: dict[str, int] = {}
        self._next = itertools.count()
        self._on_disk: dict[str, int] = {}  # class counts
        self._lock = threading.RLock()
        self._pinned: set[str] = set()
        self._members: dict[str, Member | Packed] = {}  # the most recently used last
        self._wide: dict[str, Wide] = {}  # likewise

    def open(self, on_disk: Mapping[str, int], read: Callable[[str], Member], at_most: int) -> None:
        """Add domains that are on disk; each is read when it is first used.

        Args:
          on_disk: their class counts, by name.
          read: reads one by name.
          at_most: how many of them to hold in memory, the most recently used; pinned domains do
            not count.
        """
        self._on_disk, self._read, self.at_most = dict(on_disk), read, at_most

    @property
    def names(self) -> set[str]:
        """Names of all domains, in memory or on disk."""
        with self._lock:
            return self._members.keys() | self._on_disk.keys()

    def __getitem__(self, name: str) -> Member:
        return self._found(name).member

    def variables(self, name: str) -> dict[str, Any]:
        """Return a domain's own collections, as JAX arrays."""
        return self._found(name).arrays

    def facts(self, name: str) -> Member:
        """Return a domain, with or without its variables; nothing is widened for this."""
        with self._lock:
            if name not in self._members:
                self._found(name)
            held = self._members[name]
            return held.facts if isinstance(held, Packed) else held

    def is_packed(self, name: str) -> bool:
        """Tell whether a domain is rounded, and packed in memory."""
        return self.facts(name).rounding is not None

    def classes(self, name: str) -> int:
        """Return a domain's class count, without reading the domain.

        Raises:
          KeyError: there is no such domain.
        """
        with self._lock:
            if name not in self._members:
                return self._on_disk[name]
            return self.facts(name).domain.num_classes

    def held(self) -> list[str]:
        """Return the names of the domains in memory."""
        with self._lock:
            return list(self._members)

    def version(self, name: str) -> int:
        """Return the version of a domain, after reading it if it is not in memory."""
        with self._lock:
            self.facts(name)
            return self._versions[name]

    def versions(self) -> set[int]:
        """Return the versions of the domains in memory."""
        with self._lock:
            return set(self._versions.values())

    def packed_versions(self) -> set[int]:
        """Return the versions of the packed domains in memory."""
        with self._lock:
            held = self._members.items()
            return {self._versions[name] for name, it in held if isinstance(it, Packed)}

    def add(self, name: str, member: Member) -> None:
        """Hold a domain in memory; from now on it replaces one of that name on disk.

        Raises:
          ValueError: it is said to be rounded, and its values are not; nothing is changed then.
        """
        with self._lock:
            self._hold(name, member)
            self._on_disk.pop(name, None)

    def saved(self, name: str) -> None:
        """Let a domain leave memory again: it can be read as it is. No effect without `at_most`."""
        if self.at_most is not None:
            with self._lock:
                self._on_disk[name] = self.classes(name)
                self._make_room()

    def remove(self, name: str) -> None:
        """Forget a domain, in memory or not; nothing is deleted from disk."""
        with self._lock:
            self._on_disk.pop(name, None)
            self._pinned.discard(name)
            self._let_go(name)

    def pin(self, name: str) -> None:
        """Read a domain, and keep it in memory however many others are read."""
        with self._lock:
            self._found(name)
            self._pinned.add(name)

    def unpin(self, name: str) -> None:
        """Count a domain among the `at_most` again; no effect on one that is not pinned."""
        with self._lock:
            self._pinned.discard(name)
            self._make_room()

    def _found(self, name: str) -> Wide:
        """Return a domain and its arrays; safe when several threads ask.

        Raises:
          ValueError: its class count on disk has changed since the bank was made.
        """
        with self._lock:
            if name not in self._members:
                member = self._read(name)
                if member.domain.num_classes != self._on_disk[name]:
                    raise ValueError(
                        f"domain {name!r} has {member.domain.num_classes} classes on disk; "
                        f"expected {self._on_disk[name]}, as when the family was loaded. Load the "
                        "family again."
                    )
                self._hold(name, member)
                self._make_room()
            self._members[name] = self._members.pop(name)
            found = self._wide.pop(name, None) or Wide.of(self._members[name])
            self._wide[name] = found
            self._narrow()
            return found

    def _hold(self, name: str, member: Member) -> None:
        held = member if member.rounding is None else Packed.of(member)
        self._wide.pop(name, None)
        self._versions[name] = next(self._next)
        self._members[name] = held
        if held is member:
            self._wide[name] = Wide.of(member)

    def _let_go(self, name: str) -> None:
        for held in (self._members, self._versions, self._wide):
            held.pop(name, None)

    def _narrow(self) -> None:
        """Let go of the widened arrays of packed domains that were not used for long."""
        packed = [name for name in self._wide if isinstance(self._members[name], Packed)]
        for name in packed[:-WIDE]:
            del self._wide[name]

    def _make_room(self) -> None:
        can_go = [name for name in self._members if name in self._on_disk.keys() - self._pinned]
        if self.at_most is not None:
            for name in can_go[: max(len(can_go) - self.at_most, 0)]:
                self._let_go(name)
