"""The networks that a run's domains learn from: domains of the same names in another run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from radapt_jax.data.holdout import OtherImages
from radapt_jax.family import checkpoint
from radapt_jax.family.family import Family


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


@contextlib.contextmanager
def images_of_teacher(run: str | Path, name: str) -> Iterator[None]:
    """Let an error about images say that they are not those of a domain's teacher.

    Raises:
      OtherImages: they are not.
    """
    try:
        yield
    except OtherImages as error:
        raise OtherImages(
            f"domain {name!r}: its teacher in {run} was trained on other images. Name a run that "
            f"was trained on these: --config.teachers.\n  {error}"
        ) from error
