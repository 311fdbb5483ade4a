"""Reading a run's config: checks that name what is wrong, and the objects that follow from it."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from radapt_jax import compression, files, methods, optim, values
from radapt_jax.data import loading
from radapt_jax.data.facts import USUAL
from radapt_jax.data.loading import DataSpec
from radapt_jax.domains import Domain, check_apart, check_name
from radapt_jax.models import ModelSpec
from radapt_jax.values import FLAG, PATH, TEXT, number, one_of, optional, several, whole

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
# What may change when a workdir is used again: more domains, and how the run is watched.
FREE = (
    "domains",
    "data.cache",
    "data.dir",
    "data.max_unreadable",
    "data.on_device",
    "on_nan",
    "train.log_every",
    "train.together",
)
BEGUN_IN = "begun_in"  # in config.json beside the config's entries
RUNS = ("init_from", "compress.dense")  # entries that name a folder
DATA = (
    *("source", "dir", "size", "resize", "squash"),
    *("val_fraction", "train_on", "max_unreadable"),
)
KINDS = {
    **dict.fromkeys(("method", "domains", "init_from"), TEXT),
    **{name: loading.KINDS[name] for name in ("train_fraction", "images_per_class")},
    **{f"data.{name}": loading.KINDS[name] for name in DATA},
    "start": one_of("backbone", "random"),
    "source_adapter": optional(TEXT),
    "seed": whole(0),
    "on_nan": one_of("stop", "rewind"),
    "export": one_of("latest", "best"),
    "backbone.name": TEXT,
    "backbone.width": number("(0, 64]"),
    "backbone.dtype": one_of(*DTYPES),
    **dict.fromkeys(("adapter.kind", "adapter.stages", "adapter.convs", "adapter.init"), TEXT),
    **dict.fromkeys(("adapter.dropout_first", "adapter.dropout_second"), number("[0, 1)")),
    "compress.kind": one_of("", *compression.KINDS),
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


def names(listed: str) -> tuple[str, ...]:
    """Split a comma-separated entry."""
    return tuple(part.strip() for part in listed.split(",") if part.strip())


def check(config: ConfigDict, devices: int, processes: int = 1) -> None:
    """Raise ValueError for values that no run can have; the message names the entry.

    Args:
      config: as in configs/base.py.
      devices: number of devices that share a batch, those of all processes together.
      processes: how many there are.
    """
    for name, kind in KINDS.items():
        values.check(f"config.{name}", _entry(config, name), kind)
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


def rank_rule(config: ConfigDict) -> compression.RankRule:
    """Return how ranks are chosen."""
    entries = config.compress
    return compression.rank_rule(
        entries.ranks, share=entries.share, energy=entries.energy, budget=entries.budget
    )


def model_spec(config: ConfigDict, ranks: Mapping[str, int] | None = None) -> ModelSpec:
    """Return the network of a config; `ranks` are those of a family that shares β."""
    adapter = config.adapter
    return ModelSpec(
        backbone=config.backbone.name,
        width=config.backbone.width,
        adapter=adapter.kind,
        stages=names(adapter.stages),
        convs=names(adapter.convs),
        dropout=(adapter.dropout_first, adapter.dropout_second),
        adapter_init=adapter.init,
        ranks=dict(ranks) if ranks else config.compress.share,
    )


def schedule(config: ConfigDict, total_steps: int) -> optax.Schedule:
    """Return the learning rate by step."""
    entries = config.optim
    return optim.make_schedule(
        entries.schedule,
        entries.learning_rate,
        total_steps,
        drop_at=entries.drop_at,
        drop_by=entries.drop_by,
        warmup=entries.warmup,
    )


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
    options = config.options.get(name, {})
    if not isinstance(options, Mapping | ConfigDict):
        raise ValueError(
            f"found config.options.{name} {options!r}; expected a dict such as {{'flip': False}}."
        )
    return options.to_dict() if isinstance(options, ConfigDict) else dict(options)


def check_same(config: ConfigDict, workdir: Path) -> None:
    """Raise ValueError if <workdir> holds a run whose config differs in what a run must keep.

    A folder that is spelt in another way is the same one.
    """
    path = workdir / "config.json"
    if not path.is_file():
        return
    now = _flat(json.loads(config.to_json_best_effort()))
    try:
        before = _flat(json.loads(path.read_bytes()))
    except (ValueError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path} cannot be read: {error}. It says how this run was begun: restore it, or use "
            "another --workdir."
        ) from error
    begun_in = before.pop(BEGUN_IN, os.getcwd())
    for key in RUNS:
        if _place(before.get(key), begun_in) == _place(now.get(key), os.getcwd()):
            before[key] = now.get(key)
    changed = [
        f"  config.{key}: was {before.get(key)!r}, is {now.get(key)!r}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and key not in FREE and key.split(".")[0] != "options"
    ]
    if changed:
        raise ValueError(
            f"{workdir} holds a run with another config:\n"
            + "\n".join(changed)
            + "\nUse another --workdir, or the same values to resume."
        )


def _place(found: Any, cwd: str) -> Path | None:
    """Return which folder an entry of a config means, where it was read in `cwd`."""
    if not isinstance(found, str) or not found:
        return None
    return Path(cwd, Path(found).expanduser()).resolve()


def without_places(config: ConfigDict) -> dict[str, Any]:
    """Return the entries of a config that all processes of a run must share."""
    entries = _flat(json.loads(config.to_json_best_effort()))
    return {key: it for key, it in entries.items() if key.split(".")[-1] not in ("dir", "cache")}


def remember(config: ConfigDict, workdir: Path) -> None:
    """Write <workdir>/config.json: the config, and the folder that relative paths in it are of."""
    workdir.mkdir(parents=True, exist_ok=True)
    facts = json.loads(config.to_json_best_effort()) | {BEGUN_IN: os.getcwd()}
    files.write_atomically(workdir / "config.json", json.dumps(facts, indent=1) + "\n")


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            leaves |= _flat(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves
