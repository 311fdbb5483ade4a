"""Training of one domain, from its first variables to its last."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from radapt_jax import files, optim, settings, trees
from radapt_jax.data import batches
from radapt_jax.data.loading import DomainData
from radapt_jax.data.resident import DevicePixels
from radapt_jax.evaluate import evaluate, judge
from radapt_jax.logs import RunLog
from radapt_jax.models import ModelSpec
from radapt_jax.steps import State, make_eval_step, make_train_step, replicate
from radapt_jax.training_state import TrainingCheckpoints

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What follows from a config and the size of a domain.

    `stops` are the steps after which it is evaluated and saved; `decay` has the domain's own
    decay of adapters in it.
    """

    total: int
    steps_per_epoch: float
    stops: frozenset[int]
    schedule: optax.Schedule
    decay: Mapping[str, float | None]

    @classmethod
    def of(cls, config: ConfigDict, data: DomainData) -> Plan:
        train, adapter_decay = config.train, data.domain.adapter_decay
        steps_per_epoch = len(data.splits["train"]) / train.batch_size
        total = train.steps or max(round(train.epochs * steps_per_epoch), 1)
        decay = config.optim.decay.to_dict()
        if decay["adapters"] is not None and adapter_decay is not None:
            decay["adapters"] = adapter_decay
        stops = {round((index + 1) * total / train.evals) for index in range(train.evals)}
        schedule = settings.schedule(config, total)
        return cls(total, steps_per_epoch, frozenset(stops - {0}), schedule, decay)


@dataclasses.dataclass(frozen=True)
class Job:
    """A domain to train: its images, its network, and its first variables.

    `results` are kept beside those of the training.
    """

    data: DomainData
    spec: ModelSpec
    variables: Mapping[str, Any]
    results: Mapping[str, float] = dataclasses.field(default_factory=dict)


def train_domain(
    config: ConfigDict, job: Job, workdir: Path
) -> tuple[dict[str, Any], dict[str, float]]:
    """Train one domain and return its variables (NumPy) and results.

    Goes on from the latest checkpoint under `<workdir>/training/<domain>`, if there is one.

    Args:
      config: as in configs/base.py.
      job: the domain, with a train split; val is evaluated where there is one.
      workdir: of the run.

    Returns:
      The variables of the exported state, and `{"val": top-1 in percent, "step": its step}`.

    Raises:
      FloatingPointError: the loss is NaN or infinite.
    """
    data, spec, variables = job.data, job.spec, job.variables
    domain, train = data.domain, config.train
    devices, dtype = jax.local_devices(), settings.DTYPES[config.backbone.dtype]
    plan = Plan.of(config, data)
    labels = optim.labels({key: variables[key] for key in ("params", "adapters")}, plan.decay)
    optimizer = optim.make_optimizer(labels, plan.decay, plan.schedule, config.optim.momentum)
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
    pixels = {
        name: DevicePixels(data.splits[name], lambda tree: replicate(tree, devices), devices)
        if config.data.on_device
        else batches.HostPixels(data.splits[name], domain.size)
        for name in ("train", "val")
        if name in data.splits
    }
    images, val = pixels["train"], pixels.get("val")
    log.info(
        "%s: %s, %d classes, %d training images, %d steps, decay %s",
        domain.name,
        config.method,
        domain.num_classes,
        len(data.splits["train"]),
        plan.total,
        plan.decay,
    )

    _check_resumed(workdir / "training" / f"{domain.name}.json", data, plan)
    state = State.create(variables, optimizer, devices)
    frozen = ("params",) if plan.decay["filters"] is None else ()
    with TrainingCheckpoints(workdir / "training" / domain.name, frozen) as checkpoints:
        if (latest := checkpoints.latest) is not None:
            state = replicate(checkpoints.load(latest, state), devices)
            log.info("%s: resumed at step %d of %d", domain.name, latest, plan.total)
        start = int(state.step)
        with RunLog(workdir, domain.name, start, plan.total, train.batch_size) as run_log:
            meter = Meter()
            for step in range(start, plan.total):
                batch = batches.train_batch(
                    images, domain, train.batch_size, config.seed, step, len(devices)
                )
                state, measured = train_step(state, batch, images.resident)
                meter.add(measured, train.batch_size)
                run_log.advance()
                done = step + 1
                epoch = done / plan.steps_per_epoch
                if done % train.log_every == 0 or done in plan.stops:
                    means = meter.means(domain.name, done)
                    rate = float(plan.schedule(step))
                    run_log.write(done, epoch, "train", **means, learning_rate=rate)
                    meter = Meter()
                if done in plan.stops:
                    top1 = 0.0
                    if val is not None:
                        judged = judge(
                            eval_step, state.variables, val, domain, train.batch_size, len(devices)
                        )
                        found = evaluate(judged, val.split.targets, val.split.left_out)
                        top1 = found["top1"]
                        run_log.write(done, epoch, "val", loss=found["loss"], top1=top1)
                    checkpoints.save(done, state, top1)
                    meter = Meter()
        exported = checkpoints.best if config.export == "best" else checkpoints.latest
        assert exported is not None, "the last step is among the stops"
        if exported != int(state.step):
            state = checkpoints.load(exported, state)
        results = {"step": float(exported)}
        if val is not None:
            results["val"] = checkpoints.top1()[exported]
    return trees.to_numpy(state.variables), results


def _check_resumed(path: Path, data: DomainData, plan: Plan) -> None:
    """Write down what a training goes on with, or compare it with what it began with.

    Raises:
      ValueError: the domain, its images or its decay have changed since.
    """
    spec = dataclasses.asdict(data.spec)
    del spec["dir"]
    splits = {name: len(split) for name, split in data.splits.items()}
    facts = {"domain": data.domain.to_json(), "data": spec, "images": splits, "decay": plan.decay}
    now = json.loads(json.dumps(facts))
    if path.is_file():
        before = json.loads(path.read_text())
        changed = [
            f"  {part}.{key}: was {before[part].get(key)!r}, is {value!r}"
            for part, entries in now.items()
            for key, value in entries.items()
            if before[part].get(key) != value
        ]
        if changed:
            raise ValueError(
                f"{data.domain.name}: its training began with something else ({path}):\n"
                + "\n".join(changed)
                + "\nSet it back to resume, use another --workdir, or delete the folder "
                f"{path.with_suffix('')} and this file to train it anew."
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomically(path, json.dumps(now, indent=1) + "\n")


class Meter:
    """Means of the steps since it was made; reading them waits for the device."""

    def __init__(self) -> None:
        self._measured: list[Mapping[str, jax.Array]] = []
        self._images = 0
        self._since = time.monotonic()

    def add(self, measured: Mapping[str, jax.Array], images: int) -> None:
        self._measured.append(measured)
        self._images += images

    def means(self, domain: str, step: int) -> dict[str, float]:
        """Return mean loss (nats), top-1 (percent) and images per second.

        Raises:
          FloatingPointError: the loss is NaN or infinite.
        """
        values = jax.device_get(self._measured)
        loss = float(np.mean([value["loss"] for value in values]))
        if not np.isfinite(loss):
            raise FloatingPointError(
                f"{domain}: the loss is {loss} within the {len(values)} steps before step {step}. "
                "Lower config.optim.learning_rate or add config.optim.warmup, in another --workdir."
            )
        return {
            "loss": loss,
            "top1": 100 * float(np.mean([value["top1"] for value in values])),
            "images_per_second": self._images / (time.monotonic() - self._since),
        }
