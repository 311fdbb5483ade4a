"""Adapter kinds by name; a kind that is added here is known everywhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from radapt_jax.adapters.base import Adapter, Options
from radapt_jax.adapters.low_rank import JointAdapter, LowRankAdapter
from radapt_jax.adapters.none import PlainConv
from radapt_jax.adapters.parallel import ParallelAdapter
from radapt_jax.adapters.series import SeriesAdapter

KINDS: dict[str, type[Adapter]] = {
    "none": PlainConv,
    "series": SeriesAdapter,
    "parallel": ParallelAdapter,
    "low_rank": LowRankAdapter,
    "joint": JointAdapter,
}


def kind_of(options: Options) -> type[Adapter]:
    """Return the kind that options are of.

    Raises:
      ValueError: it is not in `KINDS`.
    """
    return _kind(options.kind)


def make_options(kind: str, **chosen: Any) -> Options:
    """Return the options of a kind, those that are not chosen at their defaults.

    Raises:
      ValueError: an unknown kind, or an option that it does not have or allow.
    """
    made = _kind(kind).Options
    known = [field.name for field in dataclasses.fields(made)]
    if unknown := sorted(set(chosen) - set(known)):
        raise ValueError(
            f"found options {unknown} for {kind} adapters; expected some of {known}. Leave them "
            "out, or choose another adapter kind."
        )
    return made(**chosen)


def of_kind(options: Options, kind: str, **chosen: Any) -> Options:
    """Return options of another kind, with what both kinds have in common and what is chosen."""
    known = {field.name for field in dataclasses.fields(_kind(kind).Options)}
    kept = {name: it for name, it in options.chosen().items() if name in known}
    return make_options(kind, **{**kept, **chosen})


def options_from_json(facts: Mapping[str, Any]) -> Options:
    """Undo `Options.to_json`."""
    chosen: dict[str, Any] = {
        name: tuple(it) if isinstance(it, list) else it for name, it in facts.items()
    }
    return make_options(chosen.pop("kind"), **chosen)


def _kind(name: str) -> type[Adapter]:
    if name not in KINDS:
        raise ValueError(f"found adapter {name!r}; expected one of {list(KINDS)}.")
    return KINDS[name]
