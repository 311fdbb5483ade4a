"""Entries of a config that would do nothing in its run, and are refused where somebody set them."""

from __future__ import annotations

from radapt_jax.adapters.registry import KINDS
from radapt_jax.experiment.settings import Settings
from radapt_jax.train.job import TEMPERATURE

ADAPTERS = ("adapter.options", "adapter.stages", "adapter.convs")


def check(settings: Settings) -> None:
    """Raise ValueError where an entry was set that does nothing without another one.

    Args:
      settings: of the run.
    """
    how, placed = settings.compression, settings.placement
    compresses, joins = bool(how.kind), KINDS[settings.adapter].shares()
    needs = [  # an entry, what it says, what it says unless it is set, what it needs
        ("temperature", settings.temperature, TEMPERATURE, "teachers", bool(settings.teachers)),
        ("compress.among", how.among, "", "compress.kind", compresses),
        ("compress.distill", how.distill, False, "compress.kind", compresses),
        ("compress.temperature", how.temperature, TEMPERATURE, "compress.distill", how.distill),
        ("compress.dense", how.dense, "", "adapter.kind of a compressed family", joins),
    ]
    for entry, found, usual, needed, there in needs:
        if found != usual and not there:
            raise ValueError(
                f"found config.{entry} {found!r}, which does nothing without config.{needed}; set "
                f"that, or leave {entry} out. docs/settings.md says what each entry is of."
            )
    if compresses and (settings.adapter_options or placed.stages or placed.convs):
        raise ValueError(
            f"found one of config.{', config.'.join(ADAPTERS)} in a run that compresses; expected "
            "none of them, since adapters are those of the run that is compressed, and their ranks "
            "are chosen by config.compress."
        )
