"""A dense domain joins a family that was compressed jointly before."""

from __future__ import annotations

from typing import Any

from radapt_jax.adapters.base import by_convolution
from radapt_jax.adapters.registry import KINDS
from radapt_jax.compress.moments import Moments
from radapt_jax.compress.replace import with_factors
from radapt_jax.compress.svd import error_of, project
from radapt_jax.compress.weighted import input_roots
from radapt_jax.compress.which import factors_of, kernels
from radapt_jax.family.family import Family
from radapt_jax.family.member import Member
from radapt_jax.utils import trees


def join(family: Family, member: Member, *, moments: Moments | None = None) -> tuple[Member, float]:
    """Express a dense domain in the β of a jointly compressed family, by least squares.

    Args:
      family: a jointly compressed one.
      member: a domain with dense adapters, trained on the same filters.
      moments: of the member, to weigh errors with what its adapters read; see `moments_of`.

    Returns:
      The member with γ in place of α, ready to be added to the family and fine-tuned, and its
      relative error ‖α - β γᵀ‖ / ‖α‖.

    Raises:
      ValueError: the family shares no β, or the member has no dense adapters, was trained on other
        filters or has adapters on other convolutions.
    """
    basis: Any = family.shared.basis
    if basis is None:
        raise ValueError("this family shares no β; compress it jointly first: configs/compress.py.")
    if member.shared not in (None, family.fingerprint):
        raise ValueError(
            f"domain {member.domain.name!r} was trained on filters of sha256 "
            f"{str(member.shared)[:12]}..., but the family has {family.fingerprint[:12]}.... Train "
            "it on this family's filters."
        )
    beta, gamma = factors_of(basis.kind)
    found, wanted = member.spec.adapter.kind, KINDS[basis.kind].compresses
    if found != wanted:
        raise ValueError(
            f"domain {member.domain.name!r} has {found} adapters; expected {wanted}, which this "
            f"family's {basis.kind} adapters stand for."
        )
    alphas = kernels(member)
    betas = by_convolution(trees.flatten(family.shared.params), beta)
    if alphas.keys() != betas.keys():
        raise ValueError(
            f"domain {member.domain.name!r} has adapters on other convolutions than the family's "
            f"β: {sorted(alphas.keys() ^ betas.keys())[:3]} are on one side only. Train it with "
            "the family's stages and convs."
        )
    gammas = project(alphas, betas, None if moments is None else input_roots(moments))
    joined = with_factors(member, basis.kind, basis.ranks, {gamma: gammas})
    return joined, error_of(alphas, betas, gammas)
