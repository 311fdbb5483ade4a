"""The networks that domains learn from: the same domains, in another family."""

from __future__ import annotations

import contextlib

from radapt_jax.data.domain import Domain
from radapt_jax.family.family import Family
from radapt_jax.train.distill import Teacher
from radapt_jax.utils import trees


def teacher_of(family: Family, name: str) -> Teacher:
    """Return a domain of a family as it is, to learn from: folded if it can be."""
    member, variables = family[name], family.variables(name)
    spec = member.spec.served()
    if spec.kind.foldable:
        with contextlib.suppress(ValueError):  # no norm or bias could take a constant up
            folded = family.fold(name).weights
            spec, variables = folded.spec, folded.variables
    return Teacher(member.domain, spec, trees.to_numpy(variables))


def check_fits(teacher: Domain, domain: Domain, where: str) -> None:
    """Raise ValueError if a domain cannot learn from a network that was trained on another one.

    Args:
      teacher: what the network was trained on.
      domain: that is to learn.
      where: the network is, for messages.
    """
    begin = f"domain {domain.name!r}: its teacher in {where}"
    if teacher.classes != domain.classes:
        raise ValueError(
            f"{begin} has {teacher.num_classes} classes, {list(teacher.classes[:3])}...; the "
            f"images have {domain.num_classes}, {list(domain.classes[:3])}.... Learn from a "
            "network that was trained on these images."
        )
    if teacher.size != domain.size:
        raise ValueError(
            f"{begin} takes images of size {teacher.size}; the domain has {domain.size}. Set the "
            f"domain's size to {teacher.size}, or train the teacher again."
        )
