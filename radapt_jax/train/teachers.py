"""The networks that domains learn from: the same domains, in another family."""

from __future__ import annotations

from radapt_jax.data.domain import Domain
from radapt_jax.family.family import Family
from radapt_jax.train.distill import Teacher
from radapt_jax.utils import trees


def teacher_of(family: Family, name: str) -> Teacher:
    """Return a domain of a family as it is, to learn from: folded if it can be."""
    spec, variables = family.plainest(name)
    return Teacher(family[name].domain, spec, trees.to_numpy(variables))


def check_fits(teacher: Domain, domain: Domain, where: str) -> None:
    """Raise ValueError if a domain cannot learn from, or start as, one that was trained elsewhere.

    Args:
      teacher: what the other one was trained on.
      domain: that is to learn.
      where: the other one is, for messages.
    """
    begin = f"domain {domain.name!r}: the one of this name in {where}"
    if teacher.classes != domain.classes:
        raise ValueError(
            f"{begin} has {teacher.num_classes} classes, {list(teacher.classes[:3])}...; the "
            f"images have {domain.num_classes}, {list(domain.classes[:3])}.... Name a run that "
            "was trained on these images."
        )
    if teacher.size != domain.size:
        raise ValueError(
            f"{begin} takes images of size {teacher.size}; the domain has {domain.size}. Set the "
            f"domain's size to {teacher.size}, or train the other one again."
        )
