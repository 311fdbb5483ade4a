"""Checks that a domain belongs to a family's shared weights, and may be taken from it."""

from __future__ import annotations

from radapt_jax.adapters.options import Options
from radapt_jax.family.member import Member
from radapt_jax.family.shared import Shared


def check_fits(name: str, member: Member, shared: Shared, fingerprint: str) -> None:
    """Raise ValueError, showing both sides, unless a domain was trained on these shared weights.

    Args:
      name: of the domain, for the message.
      member: the domain.
      shared: the family's weights.
      fingerprint: of the shared weights that the domain uses.
    """
    if member.spec.backbone != shared.backbone:
        raise ValueError(
            f"domain {name!r} belongs to another network.\n"
            f"  this family:  {shared.backbone}\n"
            f"  the domain:   {member.spec.backbone}\n"
            "Load the family it was trained with, or retrain it on this one."
        )
    if member.is_joint:
        basis = shared.basis and shared.basis.served()
        if member.spec.adapter.served() != basis:
            raise ValueError(
                f"domain {name!r} stands on shared β of other options than this family has.\n"
                f"  this family:  {_described(basis)}\n"
                f"  the domain:   {_described(member.spec.adapter.served())}\n"
                "Load the compressed family it was trained with."
            )
    if not member.has_own_weights and member.shared not in (None, fingerprint):
        raise ValueError(
            f"domain {name!r} was trained on other shared weights.\n"
            f"  this family:  sha256 {fingerprint[:12]}...\n"
            f"  the domain:   sha256 {str(member.shared)[:12]}... ({member.spec.backbone})\n"
            "Load the family it was trained with, or retrain it: python train.py --config "
            f"configs/parallel.py --config.domains={name} --config.init_from=<this family>"
        )


def check_not_source(name: str, shared: Shared) -> None:
    """Raise ValueError if a domain is the one that shared weights were trained on."""
    if name == shared.source:
        raise ValueError(
            f"found {name!r}, the domain that the backbone was trained on, which stays, since new "
            "domains start from its norms; expected another name (radapt swap: --name=OTHER)."
        )


def _described(basis: Options | None) -> str:
    """Describe the adapters whose β a family shares, in a few words."""
    if basis is None:
        return "no shared β"
    text = ", ".join(f"{key} {it}" for key, it in basis.to_json().items())
    return text if len(text) <= 120 else f"{text[:117]}..."
