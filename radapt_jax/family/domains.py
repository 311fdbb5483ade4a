"""The domains of a family: what there is, what each of them holds, adding and removing them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from radapt_jax.data.domain import check_apart, check_name
from radapt_jax.family import adapter_file
from radapt_jax.family.bank import Bank
from radapt_jax.family.fits import check_fits
from radapt_jax.family.member import Member
from radapt_jax.family.shared import Shared
from radapt_jax.models.registry import Backbones
from radapt_jax.utils import trees


class Domains:
    """Shared weights, and the domains trained on them, by name.

    Args:
      shared: the shared weights.
      members: domains to start with.

    Raises:
      ValueError: the shared weights do not fit their backbone, or a domain does not fit them.
    """

    def __init__(self, shared: Shared, members: Iterable[Member] = ()) -> None:
        trees.check_like(shared.params, shared.spec.abstract(1)["params"], "the shared weights")
        self.shared = shared
        self.fingerprint = shared.fingerprint(joint=False)
        self._joint_fingerprint = shared.fingerprint(joint=True)
        self._params = jax.tree.map(jnp.asarray, shared.params)
        self._bank = Bank()
        for member in members:
            self.add(member.domain.name, member)

    @property
    def domains(self) -> list[str]:
        """Names of the domains: the source domain first, then the others, sorted."""
        return sorted(self._bank.names, key=lambda name: (name != self.shared.source, name))

    @property
    def at_most(self) -> int | None:
        """How many domains from disk are in memory at once; None: all of them. See `load`."""
        return self._bank.at_most

    def __getitem__(self, domain: str) -> Member:
        """Return what the family holds of one domain.

        Raises:
          KeyError: there is no such domain; the message lists the domains.
          ValueError: a domain that is on disk is damaged.
        """
        self._check_there(domain)
        return self._bank[domain]

    def _check_there(self, domain: str) -> None:
        if domain not in self._bank.names:
            raise KeyError(f"found no domain {domain!r} in this family; it has {self.domains}.")

    def __contains__(self, domain: object) -> bool:
        return domain in self._bank.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.domains)

    def __len__(self) -> int:
        return len(self._bank.names)

    def variables(self, domain: str) -> dict[str, Any]:
        """Return `params`, `adapters` and `batch_stats` of one domain, for `model.apply`.

        `params` are the shared arrays themselves, unless the domain has weights of its own.

        Raises:
          KeyError: there is no such domain.
        """
        self[domain]
        return {"params": self._params, **self._bank.variables(domain)}

    def model(self, domain: str, **runtime: Any) -> Any:
        """Return the network that `variables(domain)` belong to.

        Args:
          domain: its name.
          runtime: what `ModelSpec.build` takes besides the class count, such as dtype.

        Raises:
          KeyError: there is no such domain.
        """
        member = self[domain]
        return member.spec.build(member.domain.num_classes, **runtime)

    def add(self, name: str, domain: Member) -> None:
        """Add a domain under a name, or replace the one of that name.

        Args:
          name: of the domain in this family.
          domain: for instance `other_family["svhn"]`, or a `Member` made by hand.

        Raises:
          TypeError: it is no `Member`.
          ValueError: it was trained on other shared weights or another network, its variables do
            not have the shapes that its class count and adapter kind need, or its name differs
            from another's only in case; or it is said to be rounded, and its values are not. The
            family stays unchanged then.
        """
        if not isinstance(domain, Member):
            raise TypeError(
                f"found {type(domain).__name__} for domain {name!r}; expected a Member: "
                "other_family[name], or Member(domain, spec, variables) with its facts."
            )
        check_name(name)
        check_apart([*(self._bank.names - {name}), name])
        self._bank.add(name, self.fitted(name, domain))

    def saved(self, name: str) -> None:
        """Count a domain that was added among those on disk, where it was saved meanwhile.

        Where the family was loaded with `at_most`, such a domain may leave memory; it is read again
        from the workdir that the family was loaded from. No effect on other families.

        Raises:
          KeyError: there is no such domain.
        """
        self._check_there(name)
        self._bank.saved(name)

    def remove(self, name: str) -> Member:
        """Take a domain out of the family, but not off the disk, and return it.

        Raises:
          KeyError: there is no such domain.
        """
        member = self[name]
        self.forget(name)
        return member

    def forget(self, name: str) -> None:
        """Take a domain out of the family as `remove` does, without reading it.

        Raises:
          KeyError: there is no such domain.
        """
        self._check_there(name)
        self._bank.remove(name)

    def pin(self, name: str) -> None:
        """Keep a domain in memory, whatever else is used; it is read now if it is on disk.

        Pinned domains do not count among the `at_most` of `load`. Without `at_most`, all domains
        stay in memory, pinned or not.

        Raises:
          KeyError: there is no such domain.
        """
        self[name]
        self._bank.pin(name)

    def unpin(self, name: str) -> None:
        """Allow a pinned domain to leave memory again; no effect on one that is not pinned.

        Raises:
          KeyError: there is no such domain.
        """
        self._check_there(name)
        self._bank.unpin(name)

    def read_domain(self, path: str | Path) -> Member:
        """Return the domain of a safetensors file, see `adapter_file.read`; it is not added.

        Raises:
          FileNotFoundError: no such file.
          ValueError: it holds no domain, or is damaged.
        """
        return adapter_file.read(path, self._own_backbone())

    def fitted(self, name: str, domain: Member) -> Member:
        """Return a domain under a name, as `add` would hold it; the family stays as it is.

        Raises:
          ValueError: it does not fit; see `add`.
        """
        check_fits(name, domain, self.shared, self._fingerprint_for(domain))
        member = dataclasses.replace(
            domain,
            domain=dataclasses.replace(domain.domain, name=name),
            shared=None if domain.has_own_weights else self._fingerprint_for(domain),
        )
        member.check()
        return member

    def _fingerprint_for(self, member: Member) -> str:
        return self._joint_fingerprint if member.is_joint else self.fingerprint

    def _own_backbone(self) -> Backbones:
        """Return this family's network by name, for reading cards that mention it."""
        return {self.shared.backbone.name: self.shared.backbone}

    def _shared_with(self, domain: str) -> int:
        filters = trees.count(self.shared.params) - self.shared.basis_parameters()
        return filters if domain == self.shared.source else 0

    def parameters(self, domain: str) -> int:
        """Return how many parameters a domain brings.

        This includes its head and, for the source domain, the shared filters.

        Raises:
          KeyError: there is no such domain.
        """
        return self[domain].parameters() + self._shared_with(domain)

    def ratio(self, domain: str) -> float:
        """Return a domain's parameters over the backbone's, without heads (CVPR 2018, table 1).

        Raises:
          KeyError: there is no such domain.
        """
        own = self[domain].parameters(head=False) + self._shared_with(domain)
        return own / self.shared.backbone_parameters()
