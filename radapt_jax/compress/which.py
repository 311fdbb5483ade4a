"""What can be compressed, and to what."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from radapt_jax.adapters.base import carriers, of_adapter
from radapt_jax.adapters.registry import KINDS
from radapt_jax.compress.svd import Matrices
from radapt_jax.family.family import Family
from radapt_jax.family.member import Member
from radapt_jax.utils import trees


def targets() -> list[str]:
    """Return the adapter kinds that dense adapters can be compressed to."""
    return [name for name, kind in KINDS.items() if kind.factors]


def sources() -> list[str]:
    """Return the adapter kinds that can be compressed."""
    return sorted({str(KINDS[name].compresses) for name in targets()}, key=list(KINDS).index)


def dense_kinds() -> list[str]:
    """Return the adapter kinds that can be compressed and are not what others are compressed to.

    A compressing run that names one leaves adapters dense.
    """
    return [name for name in sources() if name not in targets()]


def source_of(kind: str) -> str:
    """Return which adapters become a kind of `targets()`; of `dense_kinds()`, the kind itself."""
    return KINDS[kind].compresses or kind


def factors_of(kind: str) -> tuple[str, str]:
    """Return the names of the variables β and γ of a kind in `targets()`.

    Raises:
      KeyError: there is no such kind.
    """
    found = KINDS[kind].factors
    assert found is not None
    return found


def compressible(family: Family, kind: str = "joint") -> list[str]:
    """Return the names of the domains on the shared weights that can become a kind.

    Args:
      family: with the domains.
      kind: one of `targets()` or of `dense_kinds()`.
    """
    return [
        name
        for name in family.domains
        if family[name].spec.adapter.kind == source_of(kind) and not family[name].has_own_weights
    ]


def kernels(member: Member) -> Matrices:
    """Return what can be compressed of a domain by convolution, each (rows, outputs).

    That is α of parallel adapters, A - 1 of modulation, and the product of low-rank convolutions.

    Raises:
      ValueError: it has no such adapters.
    """
    leaves, kind = trees.flatten(member.variables["adapters"]), member.spec.kind
    found = {
        conv: kind.matrix(of_adapter(leaves, conv), member.spec.adapter)
        for conv in sorted(carriers(leaves))
    }
    if not found or any(matrix is None for matrix in found.values()):
        raise ValueError(
            f"domain {member.domain.name!r}: found adapter {member.spec.adapter.kind!r}; expected "
            f"one of {sources()}, which can be compressed."
        )
    return {conv: np.asarray(matrix) for conv, matrix in found.items()}


def alphas_of(
    family: Family, domains: Sequence[str] | None = None, *, kind: str = "joint"
) -> dict[str, Matrices]:
    """Return what is to be compressed to a kind of `targets()`, by domain; see `kernels`.

    Args:
      family: with the domains.
      domains: their names; default: all that can be.
      kind: what they are to become.

    Raises:
      KeyError: there is no such domain.
      ValueError: there are none, or a domain has adapters that cannot become that kind.
    """
    names = compressible(family, kind) if domains is None else domains
    wanted = source_of(kind)
    kinds = {name: family[name].spec.adapter.kind for name in names or family}
    if not names:
        raise ValueError(
            f"found no domain with {wanted} adapters to compress to {kind}; there are {kinds}."
        )
    if others := {name: it for name, it in kinds.items() if it != wanted}:
        raise ValueError(
            f"found {others} to compress to {kind}; expected {wanted} adapters. "
            + " ".join(map(_advice, sorted(set(others.values()))))
        )
    return {name: kernels(family[name]) for name in names}


def _advice(kind: str) -> str:
    """Return what can be done with domains of a kind."""
    fitting = [name for name in targets() if KINDS[name].compresses == kind]
    if fitting:
        return f"Compress {kind} to {' or '.join(fitting)}."
    if not KINDS[kind].leaves:
        return "Without adapters there is nothing to compress."
    return (
        f"{kind.capitalize()} adapters have no matrix that a product of low rank could stand for."
    )
