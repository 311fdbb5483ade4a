"""Reading a run's config: checks that name what is wrong, and the objects that follow from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from radapt_jax import compression, files, optim
from radapt_jax.data.loading import DataSpec
from radapt_jax.models import ModelSpec

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
# What may change when a workdir is used again: more domains, and how the run is watched.
FREE = (
    "domains",
    "data.cache",
    "data.dir",
    "data.max_unreadable",
    "data.on_device",
    "train.log_every",
    "train.together",
)


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
    domains = names(config.domains)
    if not domains and not config.compress.kind:
        raise ValueError("config.domains is empty; name one or more: --config.domains=cifar100")
    if len(set(domains)) < len(domains):
        raise ValueError(f"config.domains names a domain twice: {list(domains)}.")
    if not config.method:
        raise ValueError("config.method is empty; start from one of the recipes in configs/.")
    if config.start not in ("backbone", "random"):
        raise ValueError(f"found config.start {config.start!r}; expected 'backbone' or 'random'.")
    if config.start == "backbone" and not config.init_from:
        raise ValueError(
            f"method {config.method!r} starts from shared weights, and config.init_from is empty. "
            "Pre-train (python train.py --config configs/scratch.py --config.domains=... --workdir "
            "runs/pretrain), then add --config.init_from=runs/pretrain."
        )
    if config.export not in ("latest", "best"):
        raise ValueError(f"found config.export {config.export!r}; expected 'latest' or 'best'.")
    if config.backbone.dtype not in DTYPES:
        raise ValueError(
            f"found config.backbone.dtype {config.backbone.dtype!r}; "
            f"expected one of {list(DTYPES)}."
        )
    train = config.train
    for entry in ("evals", "log_every", "accumulate", "together"):
        if train[entry] < 1:
            raise ValueError(f"found config.train.{entry} {train[entry]}; expected at least 1.")
    if train.batch_size < 1 or train.batch_size % (devices * train.accumulate):
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
    if train.steps < 0 or (train.steps == 0 and train.epochs <= 0):
        raise ValueError(
            f"found config.train.steps {train.steps} and epochs {train.epochs}; expected a "
            "positive number of either."
        )
    if not 0.0 <= train.label_smoothing < 1.0:
        raise ValueError(
            f"found config.train.label_smoothing {train.label_smoothing}; expected [0, 1)."
        )
    if not 0.0 <= config.optim.momentum < 1.0:
        raise ValueError(f"found config.optim.momentum {config.optim.momentum}; expected [0, 1).")
    DataSpec("any", **data_defaults(config))
    schedule(config, total_steps=100)
    if config.compress.kind not in ("", *compression.KINDS):
        raise ValueError(
            f"found config.compress.kind {config.compress.kind!r}; expected one of "
            f"{list(compression.KINDS)}, or '' for none."
        )
    rank_rule(config)
    model_spec(config).build(1)


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
    """Return the fields of a `DataSpec` that hold for every domain."""
    keys = ("source", "dir", "size", "resize", "squash")
    more = ("val_fraction", "train_on", "max_unreadable")
    return {
        **{key: config.data[key] for key in (*keys, *more)},
        "train_fraction": config.train_fraction,
        "images_per_class": config.images_per_class,
        "subset": config.seed,
    }


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
    return options.to_dict() if isinstance(options, ConfigDict) else dict(options)


def check_same(config: ConfigDict, workdir: Path) -> None:
    """Raise ValueError if <workdir> holds a run whose config differs in what a run must keep."""
    path = workdir / "config.json"
    if not path.is_file():
        return
    now = _flat(json.loads(config.to_json_best_effort()))
    before = _flat(json.loads(path.read_text()))
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


def remember(config: ConfigDict, workdir: Path) -> None:
    """Write <workdir>/config.json."""
    workdir.mkdir(parents=True, exist_ok=True)
    text = config.to_json_best_effort(indent=1) + "\n"
    files.write_atomically(workdir / "config.json", text)


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            leaves |= _flat(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves
