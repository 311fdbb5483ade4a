"""The networks that a run's domains learn from: domains of the same names in another run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from radapt_jax.data.domain import Domain
from radapt_jax.family import checkpoint
from radapt_jax.family.family import Family
from radapt_jax.train.distill import Teacher
from radapt_jax.utils import trees


def open_teachers(run: str | Path, names: Sequence[str], entry: str) -> Family:
    """Return the family that has a teacher for each domain.

    Args:
      run: its workdir.
      names: of the domains.
      entry: of the config, which names the run.

    Raises:
      ValueError: it lacks one of them.
    """
    there = checkpoint.list_members(run)
    if missing := [name for name in names if name not in there]:
        raise ValueError(
            f"{run} has no teacher for {missing}; it has {there}. Train those domains there first, "
            f"for instance with configs/finetune.py, or name another run: --config.{entry}."
        )
    return Family.load(run, names)


def check_fits(teacher: Domain, domain: Domain, run: str | Path, entry: str) -> None:
    """Raise ValueError if a teacher tells other classes apart, or saw images of another size."""
    where = f"domain {domain.name!r}: its teacher in {run}"
    if teacher.classes != domain.classes:
        raise ValueError(
            f"{where} has {teacher.num_classes} classes, {list(teacher.classes[:3])}...; the "
            f"images have {domain.num_classes}, {list(domain.classes[:3])}.... Name a run that was "
            f"trained on these images: --config.{entry}."
        )
    if teacher.size != domain.size:
        raise ValueError(
            f"{where} was trained on images of {teacher.size} pixels; the config asks for "
            f"{domain.size}. Set --config.data.size={teacher.size}, or train the teacher again."
        )


def check_normalised(teacher: Domain, domain: Domain, run: str | Path) -> None:
    """Raise ValueError if a teacher that is shown a domain's batches has another mean or std."""
    for what in ("mean", "std"):
        found, expected = getattr(teacher, what), getattr(domain, what)
        if tuple(found) != tuple(expected):
            raise ValueError(
                f"domain {domain.name!r}: its teacher in {run} takes images of {what} {found}, the "
                f"domain of {expected}. Give it the same: config.options.{domain.name} = "
                f"{{{what!r}: {tuple(found)}}}."
            )


def teacher_of(family: Family, name: str) -> Teacher:
    """Return a domain as it is, to learn from: folded if its kind can be."""
    member, variables = family[name], family.variables(name)
    spec = member.spec.served()
    if spec.kind.foldable:
        folded = family.fold(name).weights
        spec, variables = folded.spec, folded.variables
    return Teacher(member.domain, spec, trees.to_numpy(variables))
