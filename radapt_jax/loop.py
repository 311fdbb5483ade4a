"""One run: train every domain of a config, save each, evaluate all."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from radapt_jax import checkpoint, optim, report, settings, trees
from radapt_jax.checkpoint import Shared, TrainingCheckpoints
from radapt_jax.data import batches
from radapt_jax.data.loading import DomainData, load_domain
from radapt_jax.evaluate import Row, evaluate, evaluate_family
from radapt_jax.family import Family
from radapt_jax.logs import RunLog
from radapt_jax.member import Member
from radapt_jax.models.initial import initial_variables
from radapt_jax.steps import State, make_eval_step, make_train_step


def train_and_evaluate(config: ConfigDict, workdir: str | Path) -> list[Row]:
    """Train the config's domains one after another, then evaluate the family on its test splits.

    Started again with the same workdir, it skips finished domains and goes on with the one it was
    stopped in, from its latest checkpoint.

    Args:
      config: see configs/base.py.
      workdir: where everything goes (see radapt_jax.checkpoint, logs and report).

    Returns:
      One row a domain, the source included.

    Raises:
      ValueError: a config value, a domain's images, or a workdir of another run.
      FileNotFoundError: `init_from` or a domain's images are not there.
      FloatingPointError: the loss is NaN or infinite.
    """
    workdir = Path(workdir).absolute()
    settings.check(config, jax.local_device_count())
    family = _open_family(config, workdir)
    settings.remember(config, workdir)
    for name in settings.names(config.domains):
        if family is not None and name in family:
            logging.info("%s: finished before, kept.", name)
            continue
        data = load_domain(
            name, _data_defaults(config), settings.domain_options(config, name), config.data.cache
        )
        family, member = _train_domain(config, family, data, workdir)
        family.add(name, member)
        checkpoint.save_member(family[name], workdir)
    assert family is not None, "settings.check wants at least one domain"
    rows = evaluate_family(
        family,
        cache_dir=config.data.cache,
        batch_size=config.train.batch_size,
        dtype=settings.DTYPES[config.backbone.dtype],
    )
    report.write(rows, workdir)
    return rows


def _open_family(config: ConfigDict, workdir: Path) -> Family | None:
    """Return the workdir's family, or a new one on init_from's weights; None: still to be made."""
    if (workdir / "shared").is_dir():
        return Family.load(workdir)
    if not config.init_from:
        return None
    shared = checkpoint.load_shared(config.init_from)
    found, wanted = (
        (shared.backbone, shared.width),
        (config.backbone.name, config.backbone.width),
    )
    if found != wanted:
        raise ValueError(
            f"{config.init_from} holds {found[0]} of width {found[1]}, the config asks for "
            f"{wanted[0]} of width {wanted[1]}. Set --config.backbone.width={found[1]}."
        )
    if config.source_adapter is not None and shared.adapter != config.source_adapter:
        raise ValueError(
            f"method {config.method!r} wants shared weights pre-trained with adapter "
            f"{config.source_adapter!r}; {config.init_from} was with {shared.adapter!r}."
        )
    source = [shared.source] if shared.source in settings.names(config.domains) else []
    if source:
        raise ValueError(
            f"domain {source[0]!r} is the one {config.init_from} was pre-trained on; the family "
            "has it already. To train it again, give it another name: config.options.<name> = "
            f"{{'dataset': {source[0]!r}}}."
        )
    family = Family(
        shared, [checkpoint.load_member(config.init_from, shared.source)] if shared.source else []
    )
    family.save(workdir)
    return family


def _data_defaults(config: ConfigDict) -> dict[str, Any]:
    keys = ("source", "dir", "size", "resize", "squash", "val_fraction")
    return {key: config.data[key] for key in keys}


def _start(config: ConfigDict, family: Family | None, data: DomainData) -> dict[str, Any]:
    """Return a domain's first variables.

    From the backbone: its filters, and its norms with their statistics where the network has
    them; adapters (with their norms) and head are fresh.
    """
    spec = settings.model_spec(config)
    fresh = initial_variables(spec, data.domain.num_classes, config.seed)
    if config.start == "random":
        return fresh
    assert family is not None, "settings.check wants init_from for start='backbone'"
    variables = {**fresh, "params": trees.to_numpy(family.shared.params)}
    if family.shared.source is None:
        return variables
    source = trees.flatten(family[family.shared.source].variables)
    leaves = trees.flatten(variables)
    for path, leaf in source.items():
        is_adapter = "/adapter/" in path
        is_norm = path.startswith("batch_stats/") or optim.label(path) == "norms"
        if is_norm and not is_adapter:
            leaves[path] = np.array(leaf)
    return trees.unflatten(leaves)


def _train_domain(
    config: ConfigDict, family: Family | None, data: DomainData, workdir: Path
) -> tuple[Family, Member]:
    """Train one domain; return the family (made here if this is the source) and the new member."""
    domain, train = data.domain, config.train
    devices = jax.local_devices()
    dtype = settings.DTYPES[config.backbone.dtype]
    images = data.splits["train"]
    total = train.steps or max(round(train.epochs * len(images) / train.batch_size), 1)
    epoch = train.batch_size / len(images)
    schedule = optim.make_schedule(
        config.optim.schedule,
        config.optim.learning_rate,
        total,
        drop_at=config.optim.drop_at,
        drop_by=config.optim.drop_by,
        warmup=config.optim.warmup,
    )
    decay = config.optim.decay.to_dict()
    if decay["adapters"] is not None and domain.adapter_decay is not None:
        decay["adapters"] = domain.adapter_decay
    spec = settings.model_spec(config)
    variables = _start(config, family, data)
    labels = optim.labels({key: variables[key] for key in ("params", "adapters")}, decay)
    optimizer = optim.make_optimizer(labels, decay, schedule, config.optim.momentum)
    state = State.create(variables, optimizer)
    train_step = make_train_step(
        spec,
        domain,
        optimizer,
        labels,
        devices=devices,
        seed=config.seed,
        smoothing=train.label_smoothing,
        sync_norm=train.sync_norm,
        dtype=dtype,
    )
    eval_step = make_eval_step(spec, domain, devices=devices, dtype=dtype)
    logging.info(
        "%s: %s, %d classes, %d training images, %d steps, decay %s",
        domain.name,
        config.method,
        domain.num_classes,
        len(images),
        total,
        decay,
    )

    trains_filters = decay["filters"] is not None
    frozen = None if trains_filters else state.params

    def to_save(state: State) -> State:
        return state if trains_filters else state.replace(params={})

    def from_saved(saved: State) -> State:
        params = saved.params if trains_filters else frozen
        return jax.tree.map(jax.numpy.asarray, saved.replace(params=params))

    stops = {round((index + 1) * total / train.evals) for index in range(train.evals)} | {total}
    results: dict[str, float] = {}
    with TrainingCheckpoints(workdir / "training" / domain.name) as checkpoints:
        if checkpoints.latest is not None:
            state = from_saved(checkpoints.load(checkpoints.latest, to_save(state)))
            logging.info("%s: resumed at step %d of %d", domain.name, int(state.step), total)
        start = int(state.step)
        with RunLog(workdir, domain.name, start, total, train.batch_size) as log:
            pending, since = [], time.monotonic()
            for step in range(start, total):
                batch = batches.train_batch(
                    images, train.batch_size, config.seed, step, len(devices)
                )
                state, measured = train_step(state, batch)
                pending.append(measured)
                log.advance()
                done = step + 1
                if done % train.log_every == 0 or done in stops:
                    means = {
                        key: float(np.mean([float(values[key]) for values in pending]))
                        for key in ("loss", "top1")
                    }
                    if not np.isfinite(means["loss"]):
                        raise FloatingPointError(
                            f"{domain.name}: the loss is {means['loss']} within the "
                            f"{len(pending)} steps before step {done}. Lower config.optim."
                            "learning_rate, or add config.optim.warmup."
                        )
                    log.write(
                        done,
                        done * epoch,
                        "train",
                        loss=means["loss"],
                        top1=100 * means["top1"],
                        learning_rate=float(schedule(step)),
                        images_per_second=len(pending)
                        * train.batch_size
                        / (time.monotonic() - since),
                    )
                    pending, since = [], time.monotonic()
                if done in stops:
                    top1 = 0.0
                    if "val" in data.splits:
                        val = evaluate(
                            eval_step,
                            state.variables,
                            data.splits["val"],
                            train.batch_size,
                            len(devices),
                        )
                        top1 = val["top1"]
                        log.write(done, done * epoch, "val", loss=val["loss"], top1=top1)
                        results["val"] = top1
                    checkpoints.save(done, to_save(state), top1)
                    since = time.monotonic()
        if config.export == "best" and checkpoints.best is not None:
            state = from_saved(checkpoints.load(checkpoints.best, to_save(state)))
    final = trees.to_numpy(state.variables)
    if family is None:
        family = Family(
            Shared(
                final["params"], spec.backbone, spec.width, source=domain.name, adapter=spec.adapter
            )
        )
        checkpoint.save_shared(family.shared, workdir)
        trains_filters = False
    if not trains_filters:
        del final["params"]
    member = Member(
        domain=domain,
        spec=spec,
        variables=final,
        method=config.method,
        shared=None if trains_filters else family.fingerprint,
        data=dataclasses.replace(data.spec, dir=str(Path(data.spec.dir).expanduser().absolute()))
        if data.spec.dir
        else data.spec,
        images={split: len(part) for split, part in data.splits.items()},
        results=results,
    )
    return family, member
