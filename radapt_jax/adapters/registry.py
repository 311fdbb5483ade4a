"""Adapter kinds by name; a kind that is added here is known everywhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from radapt_jax.adapters.base import Adapter
from radapt_jax.adapters.controller import ControllerAdapter
from radapt_jax.adapters.conv_adapter import ConvAdapterAdapter
from radapt_jax.adapters.conv_lora import ConvLoraAdapter, JointConvLoraAdapter
from radapt_jax.adapters.low_rank import JointAdapter, LowRankAdapter
from radapt_jax.adapters.mask import AffineMaskAdapter, MaskAdapter
from radapt_jax.adapters.modulation import (
    JointModulationAdapter,
    LowRankModulationAdapter,
    ModulationAdapter,
)
from radapt_jax.adapters.none import PlainConv
from radapt_jax.adapters.options import Options
from radapt_jax.adapters.parallel import ParallelAdapter
from radapt_jax.adapters.random_basis import RandomBasisAdapter, VeraAdapter
from radapt_jax.adapters.series import SeriesAdapter

KINDS: dict[str, type[Adapter]] = {
    "none": PlainConv,
    "series": SeriesAdapter,
    "parallel": ParallelAdapter,
    "low_rank": LowRankAdapter,
    "joint": JointAdapter,
    "modulation": ModulationAdapter,
    "modulation_low_rank": LowRankModulationAdapter,
    "modulation_joint": JointModulationAdapter,
    "controller": ControllerAdapter,
    "mask": MaskAdapter,
    "affine_mask": AffineMaskAdapter,
    "conv_lora": ConvLoraAdapter,
    "conv_lora_joint": JointConvLoraAdapter,
    "random_basis": RandomBasisAdapter,
    "vera": VeraAdapter,
    "conv_adapter": ConvAdapterAdapter,
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
    """Return options of another kind, with what is chosen and what both kinds have for training.

    Decays are not among that: they are of variables that the other kind may not have.
    """
    known = {field.name for field in dataclasses.fields(_kind(kind).Options)} - {"decay"}
    kept = {name: getattr(options, name) for name in options.training_only if name in known}
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
