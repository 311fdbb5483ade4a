"""How commands save what they made."""

from __future__ import annotations

from pathlib import Path

from radapt_jax.family.family import Family
from radapt_jax.train.lock import held


def save_new(family: Family, out: Path) -> None:
    """Save a family in a folder that holds none.

    Raises:
      ValueError: the folder holds a family.
      OSError: nothing can be written there.
    """
    with held(out):
        check_new(out)
        family.save(out)
    print(f"{out}: {', '.join(family)}")


def check_new(out: Path) -> None:
    """Raise ValueError if a folder holds a family."""
    if any((out / part).exists() for part in ("shared", "domains")):
        raise ValueError(f"{out} holds a family already; name a new folder.")
