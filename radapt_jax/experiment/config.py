"""Reading a run's config: checks that name what is wrong, and the objects that follow from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from radapt_jax.adapters.base import Options
from radapt_jax.adapters.registry import make_options
from radapt_jax.compress import ranks as compress_ranks
from radapt_jax.compress.family import targets
from radapt_jax.compress.ranks import RankRule
from radapt_jax.data import spec as data_spec
from radapt_jax.data.domain import Domain, check_apart, check_name
from radapt_jax.data.settle import USUAL
from radapt_jax.data.sources.registry import SOURCES
from radapt_jax.data.spec import DataSpec
from radapt_jax.evaluation.evaluate import evaluate_family
from radapt_jax.evaluation.result import Result
from radapt_jax.experiment import methods
from radapt_jax.family.family import Family
from radapt_jax.models.backbone import Backbone, Placement
from radapt_jax.models.registry import make_backbone, option_names
from radapt_jax.models.spec import DTYPES, ModelSpec
from radapt_jax.train import optim
from radapt_jax.train.job import schedule
from radapt_jax.utils import checks
from radapt_jax.utils.checks import (
    FLAG,
    PATH,
    TEXT,
    names,
    number,
    one_of,
    optional,
    several,
    whole,
)

BEGUN_IN = "begun_in"  # in config.json beside the config's entries
RUNS = ("init_from", "compress.dense")  # entries that name a folder
DATA = (
    *("source", "dir", "size", "resize", "squash"),
    *("val_fraction", "train_on", "max_unreadable"),
)
KINDS = {
    **dict.fromkeys(("method", "domains", "init_from"), TEXT),
    **{name: data_spec.KINDS[name] for name in ("train_fraction", "images_per_class")},
    **{f"data.{name}": data_spec.KINDS[name] for name in DATA if name != "source"},
    "start": one_of("backbone", "random"),
    "source_adapter": optional(TEXT),
    "seed": whole(0),
    "on_nan": one_of("stop", "rewind"),
    "export": one_of("latest", "best"),
    "backbone.name": TEXT,
    "backbone.dtype": one_of(*DTYPES),
    **dict.fromkeys(("adapter.kind", "adapter.stages", "adapter.convs"), TEXT),
    **dict.fromkeys(("compress.ranks", "compress.dense"), TEXT),
    **dict.fromkeys(("compress.share", "compress.energy"), number("(0, 1]")),
    "compress.budget": whole(0),
    "data.cache": PATH,
    "data.on_device": FLAG,
    "train.batch_size": whole(1),
    "train.epochs": number("[0, 1e6]"),
    "train.steps": whole(0),
    **{f"train.{name}": whole(1) for name in ("evals", "log_every", "accumulate", "together")},
    "train.label_smoothing": number("[0, 1)"),
    "train.sync_norm": FLAG,
    "optim.learning_rate": optim.RATE,
    "optim.momentum": number("[0, 1)"),
    "optim.schedule": TEXT,
    "optim.drop_at": several(number("[0, 1]")),
    "optim.drop_by": optim.DROP,
    "optim.warmup": number("[0, 1]"),
    **{f"optim.decay.{label}": optim.DECAY for label in optim.LABELS},
}


def check(config: ConfigDict, devices: int, processes: int = 1) -> None:
    """Raise ValueError for values that no run can have; the message names the entry.

    Args:
      config: as in configs/base.py.
      devices: number of devices that share a batch, those of all processes together.
      processes: how many there are.
    """
    for name, kind in KINDS.items():
        checks.check(f"config.{name}", _entry(config, name), kind)
    checks.check("config.data.source", config.data.source, one_of(*sorted(SOURCES)))
    checks.check("config.compress.kind", config.compress.kind, one_of("", *targets()))
    domains = names(config.domains)
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
    if not config.method:
        raise ValueError("config.method is empty; start from one of the recipes in configs/.")
    if config.start == "backbone" and not config.init_from:
        raise ValueError(
            f"method {config.method!r} starts from shared weights, and config.init_from is empty. "
            "Pre-train (python train.py --config configs/scratch.py --config.domains=... --workdir "
            "runs/pretrain), then add --config.init_from=runs/pretrain."
        )
    train = config.train
    if train.batch_size % (devices * train.accumulate):
        raise ValueError(
            f"found config.train.batch_size {train.batch_size}; expected a positive multiple of "
            f"the {devices} devices that share a batch, times config.train.accumulate "
            f"({train.accumulate})."
        )
    if train.together > 1 and (config.optim.decay.filters is not None or config.data.on_device):
        raise ValueError(
            f"found config.train.together {train.together}; domains are trained at once where "
            "their filters are frozen (config.optim.decay.filters is None) and their images are "
            "not kept on the device (config.data.on_device is False)."
        )
    if train.together > 1 and processes > 1:
        raise ValueError(
            f"found config.train.together {train.together} and {processes} processes; domains are "
            "trained at once by one process. Set config.train.together to 1, or start a run for "
            "some of the domains on each host."
        )
    if train.steps == 0 and train.epochs == 0:
        raise ValueError(
            f"found config.train.steps {train.steps} and epochs {train.epochs}; expected a "
            "positive number of either."
        )
    side = backbone(config).multiple_of
    checks.check("config.data.size", config.data.size, whole(side, multiple_of=side))
    schedule(config, total_steps=100)
    rank_rule(config)
    spec = model_spec(config)
    spec.build(1)
    methods.check(config, spec, alone=len(domains) == 1)


def _entry(config: ConfigDict, name: str) -> Any:
    """Return an entry by its dotted name."""
    found: Any = config
    for part in name.split("."):
        if not isinstance(found, ConfigDict) or part not in found:
            raise ValueError(f"config has no {name}; start from a recipe in configs/.")
        found = found[part]
    return found


def rank_rule(config: ConfigDict) -> RankRule:
    """Return how ranks are chosen."""
    entries = config.compress
    return compress_ranks.rank_rule(
        entries.ranks, share=entries.share, energy=entries.energy, budget=entries.budget
    )


def model_spec(config: ConfigDict, basis: Options | None = None) -> ModelSpec:
    """Return the network of a config.

    Args:
      config: as in configs/base.py.
      basis: the options of the adapters whose shared variables a family has; None: it has none.
    """
    adapter = config.adapter
    chosen = {**(basis.chosen() if basis else {}), **_plain(config, "adapter.options")}
    return ModelSpec(
        backbone=backbone(config),
        adapter=make_options(adapter.kind, **chosen),
        placement=Placement(names(adapter.stages) or None, names(adapter.convs) or None),
    )


def backbone(config: ConfigDict) -> Backbone:
    """Return the backbone of a config; its width goes to those that have one."""
    name, options = config.backbone.name, _plain(config, "backbone.options")
    if "width" in option_names(name):
        options = {"width": config.backbone.width, **options}
    return make_backbone(name, **options)


def _plain(config: ConfigDict, entry: str) -> dict[str, Any]:
    """Return an entry that holds options as plain values."""
    found = _entry(config, entry)
    if not isinstance(found, Mapping | ConfigDict):
        raise ValueError(
            f"found config.{entry} {found!r}; expected a dict such as {{'init': 'he_normal'}}."
        )
    return found.to_dict() if isinstance(found, ConfigDict) else dict(found)


def data_defaults(config: ConfigDict) -> dict[str, Any]:
    """Return what holds for every domain: fields of a `DataSpec`, and the decay of adapters."""
    return {
        **{key: config.data[key] for key in DATA},
        "train_fraction": config.train_fraction,
        "images_per_class": config.images_per_class,
        "subset": config.seed,
        "adapter_decay": config.optim.decay.adapters,
    }


def with_decay(config: ConfigDict, domain: Domain) -> Domain:
    """Return a domain that is trained again, with the decay of adapters that is asked for now."""
    options, found = domain_options(config, domain.name), config.optim.decay.adapters
    if "adapter_decay" in options:
        return dataclasses.replace(domain, adapter_decay=options["adapter_decay"])
    asked = found not in (None, USUAL["adapter_decay"])
    return dataclasses.replace(domain, adapter_decay=None) if asked else domain


def check_same_images(config: ConfigDict, spec: DataSpec) -> None:
    """Raise ValueError if a domain is to be compressed on other images than it was trained on."""
    wanted = {**data_defaults(config), **domain_options(config, spec.name)}
    for field in ("train_on", "train_fraction", "images_per_class"):
        if getattr(spec, field) != wanted[field]:
            raise ValueError(
                f"domain {spec.name!r} was trained with {field} {getattr(spec, field)!r}, the "
                f"config asks for {wanted[field]!r}. A compressed domain is fine-tuned on the "
                "images that it was trained on: set the same."
            )


def domain_options(config: ConfigDict, name: str) -> dict[str, Any]:
    """Return config.options of one domain as plain values ({} where there are none)."""
    return _plain(config, f"options.{name}") if name in config.options else {}


def _place(found: Any, cwd: str) -> Path | None:
    """Return which folder an entry of a config means, where it was read in `cwd`."""
    if not isinstance(found, str) or not found:
        return None
    return Path(cwd, Path(found).expanduser()).resolve()


def evaluate_run(config: ConfigDict, family: Family) -> list[Result]:
    return evaluate_family(
        family,
        cache_dir=config.data.cache,
        batch_size=config.train.batch_size,
        dtype=DTYPES[config.backbone.dtype],
    )
