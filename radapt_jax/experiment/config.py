"""Reading a run's config: checks that name what is wrong, and the settings that follow from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from radapt_jax.compress.fits import FITS
from radapt_jax.compress.ranks import rank_rule
from radapt_jax.compress.which import dense_kinds, targets
from radapt_jax.data import spec as data_spec
from radapt_jax.data.domain import check_apart, check_name
from radapt_jax.data.sources.registry import SOURCES
from radapt_jax.experiment import idle, methods
from radapt_jax.experiment.curve import candidates
from radapt_jax.experiment.settings import Compression, Lessons, Settings
from radapt_jax.family.rounding import WHOLE
from radapt_jax.models.backbone import Backbone, Placement
from radapt_jax.models.registry import make_backbone, option_names
from radapt_jax.models.spec import ModelSpec
from radapt_jax.train import distill, optim, options
from radapt_jax.train.distill import Distillation
from radapt_jax.train.options import TrainOptions
from radapt_jax.utils import checks
from radapt_jax.utils.checks import FLAG, PATH, TEXT, names, number, one_of, optional, whole

BEGUN_IN = "begun_in"  # in config.json beside the config's entries
RUNS = ("init_from", "teachers", "compress.dense", "distill.teachers")  # entries that name a folder
DATA = (
    *("source", "dir", "size", "resize", "squash"),
    *("val_fraction", "train_on", "max_unreadable"),
)
OPTIMISER = (
    *("learning_rate", "momentum", "schedule", "drop_at", "drop_by", "warmup", "average", "decay"),
    *("adapter_optimizer", "adapter_rate"),
)
COMPRESS = (
    *("fit", "moments", "dense", "statistics", "distill", "temperature"),
    *("among", "at_most"),
)
ELSEWHERE = {
    **{name: name for name in ("seed", "on_nan", "export")},
    **{name: f"optim.{name}" for name in OPTIMISER},
    "optimizer": "optim.name",
    "bits": "compress.bits",
    "dtype": "backbone.dtype",
    "on_device": "data.on_device",
}
# The entry of each option of training; most are under config.train.
ENTRIES = {
    field.name: ELSEWHERE.get(field.name, f"train.{field.name}")
    for field in dataclasses.fields(TrainOptions)
}
KNOWN = (*targets(), *dense_kinds())  # what config.compress.kind may be
KINDS = {
    **dict.fromkeys(("method", "domains", "init_from", "teachers"), TEXT),
    "temperature": distill.KINDS["temperature"],
    **{name: data_spec.KINDS[name] for name in ("train_fraction", "images_per_class")},
    **{f"data.{name}": data_spec.KINDS[name] for name in DATA if name != "source"},
    **{ENTRIES[name]: kind for name, kind in options.KINDS.items()},
    **{f"optim.decay.{label}": optim.DECAY for label in optim.LABELS},
    "start": one_of("backbone", "random"),
    "source_adapter": optional(TEXT),
    "backbone.name": TEXT,
    **dict.fromkeys(("adapter.kind", "adapter.stages", "adapter.convs"), TEXT),
    **dict.fromkeys(("compress.ranks", "compress.dense", "distill.teachers"), TEXT),
    **dict.fromkeys(("compress.share", "compress.energy"), number("(0, 1]")),
    **dict.fromkeys(("compress.budget", "compress.statistics"), whole(0)),
    "compress.among": TEXT,
    "compress.at_most": number("[0, 100]"),
    "compress.fit": one_of(*FITS),
    "compress.moments": whole(1),
    "compress.distill": FLAG,
    "compress.temperature": distill.KINDS["temperature"],
    "distill.on": FLAG,
    **{f"distill.{name}": kind for name, kind in distill.KINDS.items()},
    "data.cache": PATH,
}


def read(config: ConfigDict, devices: int, processes: int = 1) -> Settings:
    """Return what a run does; ValueError names an entry whose value no run can have.

    Args:
      config: as in configs/base.py.
      devices: number of devices that share a batch, those of all processes together.
      processes: how many there are.
    """
    for name, kind in KINDS.items():
        checks.check(f"config.{name}", _entry(config, name), kind)
    checks.check("config.data.source", config.data.source, one_of(*sorted(SOURCES)))
    checks.check("config.compress.kind", config.compress.kind, one_of("", *KNOWN))
    candidates(config.compress.among)
    _check_domains(names(config.domains), config)
    if not config.method:
        raise ValueError("config.method is empty; start from one of the recipes in configs/.")
    if config.start == "backbone" and not config.init_from:
        raise ValueError(
            f"method {config.method!r} starts from shared weights, and config.init_from is empty. "
            "Pre-train (python train.py --config configs/scratch.py --config.domains=... --workdir "
            "runs/pretrain), then add --config.init_from=runs/pretrain."
        )
    settings = _settings(config)
    side = settings.backbone.multiple_of
    checks.check("config.data.size", config.data.size, whole(side, multiple_of=side))
    options.check_place(settings.options, devices, processes, lambda it: f"config.{ENTRIES[it]}")
    spec = settings.network()
    spec.build(1)
    idle.check(settings)
    if settings.teachers:
        _check_teachers(settings, spec)
    methods.check(settings, spec)
    if settings.start == "random" and settings.init_from and not settings.options.trains_filters:
        raise ValueError(
            f"found config.start 'random' with config.init_from {config.init_from!r} and filters "
            "that are frozen (config.optim.decay.filters None); a family keeps no random filters "
            "of a domain that trains none. Leave init_from out, so that the run's first domain "
            "brings the random filters that all of its domains share, or train them."
        )
    if settings.lessons is not None:
        _check_distillation(settings, spec)
    if settings.compression.distill and settings.options.together > 1:
        raise ValueError(
            f"found config.train.together {settings.options.together} with config.compress.distill "
            "True; expected 1: domains that learn from their dense ones are trained one by one."
        )
    return settings


def _check_teachers(settings: Settings, spec: ModelSpec) -> None:
    """Raise ValueError where a run cannot learn from another one's domains."""
    wrong = {
        "config.distill.on": settings.lessons is not None,
        "config.compress.kind": bool(settings.compression.kind),
        "config.train.together": settings.options.together > 1,
        "config.train.views": settings.options.views > 0,
        "config.adapter.kind": spec.kind.shares(),
    }
    if found := [entry for entry, is_so in wrong.items() if is_so]:
        raise ValueError(
            f"found config.teachers {settings.teachers!r} beside {', '.join(found)}; a domain "
            "learns from another network where it is trained by itself, on its own variables, and "
            "images pass both networks: leave teachers out, or set train.together to 1, "
            "train.views to 0, and adapters that domains do not share. Distillation has "
            "config.distill.teachers, compression config.compress.distill."
        )


def _check_distillation(settings: Settings, spec: ModelSpec) -> None:
    """Raise ValueError for what cannot be distilled."""
    assert settings.lessons is not None
    if not settings.lessons.teachers:
        raise ValueError(
            "config.distill.teachers is empty; name a run that has trained each of the domains, "
            "for instance with configs/finetune.py: --config.distill.teachers=runs/finetune"
        )
    if not settings.options.trains_filters:
        raise ValueError(
            "found config.optim.decay.filters None (frozen); distillation trains the shared "
            "filters. Set a number: --config.optim.decay.filters=0.0005"
        )
    for name in ("mixup", "distortion", "average"):
        if found := getattr(settings.options, name):
            raise ValueError(
                f"found config.{ENTRIES[name]} {found} in a run that distills; expected 0."
            )
    if settings.options.bits != WHOLE:
        raise ValueError(
            f"found config.compress.bits {settings.options.bits} in a run that distills; expected "
            f"{WHOLE}. Round the finished run: radapt compress RUN --bits 4 --out DIR."
        )
    if settings.compression.kind or spec.kind.shares():
        raise ValueError(
            f"found config.compress.kind {settings.compression.kind!r} and config.adapter.kind "
            f"{settings.adapter!r}; shared weights are distilled with adapters that domains do not "
            "share. Compress the finished run: configs/compress.py."
        )


def _check_domains(domains: tuple[str, ...], config: ConfigDict) -> None:
    if not domains and not config.compress.kind:
        raise ValueError("config.domains is empty; name one or more: --config.domains=cifar100")
    if len(set(domains)) < len(domains):
        raise ValueError(
            f"config.domains names a domain twice: {list(domains)}; name each once. For the "
            "same images under another name: config.options.<name> = {'dataset': <domain>}."
        )
    for name in domains:
        check_name(name)
    check_apart(domains)


def _settings(config: ConfigDict) -> Settings:
    """Return the settings of a config whose entries are of their kinds."""
    adapter, compress = config.adapter, config.compress
    return Settings(
        method=config.method,
        domains=names(config.domains),
        init_from=config.init_from,
        start=config.start,
        source_adapter=config.source_adapter,
        options=train_options(config),
        backbone=_backbone(config),
        adapter=adapter.kind,
        adapter_options=_plain("adapter.options", adapter.options),
        placement=Placement(names(adapter.stages) or None, names(adapter.convs) or None),
        compression=Compression(
            kind=compress.kind,
            ranks=rank_rule(
                compress.ranks,
                share=compress.share,
                energy=compress.energy,
                budget=compress.budget,
            ),
            **{name: compress[name] for name in COMPRESS},
        ),
        lessons=_lessons(config.distill),
        teachers=config.teachers,
        temperature=config.temperature,
        data={
            **{key: config.data[key] for key in DATA},
            "train_fraction": config.train_fraction,
            "images_per_class": config.images_per_class,
            "subset": config.seed,
            "adapter_decay": config.optim.decay.adapters,
        },
        by_domain={name: _plain(f"options.{name}", it) for name, it in config.options.items()},
        cache=config.data.cache,
    )


def _lessons(distill: ConfigDict) -> Lessons | None:
    """Return what shared weights are distilled from."""
    how = {field.name: distill[field.name] for field in dataclasses.fields(Distillation)}
    if distill.on:
        return Lessons(distill.teachers, Distillation(**how))
    usual = {"teachers": "", **dataclasses.asdict(Distillation())}
    if found := {name: distill[name] for name, it in usual.items() if distill[name] != it}:
        raise ValueError(
            f"found config.distill {found} in a run that does not distill; start from "
            "configs/distill.py, or leave that out. A domain that is trained by itself learns from "
            "another one with config.teachers."
        )
    return None


def train_options(config: ConfigDict) -> TrainOptions:
    """Return the options of training."""
    found = {name: _entry(config, entry) for name, entry in ENTRIES.items()}
    return TrainOptions(**{**found, "decay": _plain("optim.decay", config.optim.decay)})


def _entry(config: ConfigDict, name: str) -> Any:
    """Return an entry by its dotted name."""
    found: Any = config
    for part in name.split("."):
        if not isinstance(found, ConfigDict) or part not in found:
            raise ValueError(f"config has no {name}; start from a recipe in configs/.")
        found = found[part]
    return found


def _backbone(config: ConfigDict) -> Backbone:
    """Return the backbone; its width goes to those that have one."""
    name, chosen = config.backbone.name, _plain("backbone.options", config.backbone.options)
    if "width" in option_names(name):
        chosen = {"width": config.backbone.width, **chosen}
    return make_backbone(name, **chosen)


def _plain(entry: str, found: Any) -> dict[str, Any]:
    """Return what was found in an entry that holds options, as plain values."""
    if not isinstance(found, Mapping | ConfigDict):
        raise ValueError(
            f"found config.{entry} {found!r}; expected a dict such as {{'init': 'he_normal'}}."
        )
    return found.to_dict() if isinstance(found, ConfigDict) else dict(found)


def place_of(found: Any, cwd: str) -> Path | None:
    """Return which folder an entry of a config means, where it was read in `cwd`."""
    if not isinstance(found, str) or not found:
        return None
    return Path(cwd, Path(found).expanduser()).resolve()
