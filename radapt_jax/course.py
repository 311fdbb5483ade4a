"""One domain's way through its training: where it goes on, what is written, what comes of it."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from radapt_jax import files, hosts, settings, trees
from radapt_jax.data.loading import DomainData
from radapt_jax.engine import pixels_of
from radapt_jax.evaluate import evaluate, judge
from radapt_jax.logs import NoLog, RunLog
from radapt_jax.plan import Job, Plan
from radapt_jax.steps import make_eval_step
from radapt_jax.training_state import TrainingCheckpoints
from radapt_jax.update import State, replicate

log = logging.getLogger(__name__)


UNKNOWN = -1.0  # validation top-1 of a state that was saved between two evaluations
MOST_SKIPPED = 10  # batches that a training may leave out


class Diverged(FloatingPointError):
    """A loss or a gradient is NaN or infinite; `step` is the first in which it was."""

    def __init__(self, told: str, step: int) -> None:
        super().__init__(told)
        self.step = step


class Course:
    """A domain that is being trained; a context manager, which is entered before the first step.

    Args:
      job: the domain.
      workdir: of the run.
      devices: for evaluation.

    Attributes:
      index: its place among those that are trained at once.
      skipped: batches that are left out.
      state: after the last step that is saved, once the course is entered.
    """

    state: State
    index = 0

    def __init__(self, job: Job, workdir: Path, devices: Sequence[jax.Device]) -> None:
        self.job, self.plan = job, job.plan
        self._workdir, self._devices = workdir, devices
        self._folder = workdir / "training" / job.name
        self.skipped = skipped_before(self._folder)
        frozen = ("params",) if self.plan.decay["filters"] is None else ()
        self._checkpoints = TrainingCheckpoints(self._folder, frozen)

    def __enter__(self) -> Course:
        job, plan, config = self.job, self.plan, self.job.config
        log.info(
            "%s: %s, %d classes, %d training images, %d steps, decay %s",
            job.name,
            config.method,
            job.data.domain.num_classes,
            len(job.data.splits["train"]),
            plan.total,
            plan.decay,
        )
        facts = _facts(job.data, plan)
        mains = hosts.by_main(lambda: facts)
        with hosts.agreed():
            _check_same(mains, facts, f"{job.name}: this process has others than process 0")
        path = self._folder.with_name(f"{job.name}.json")
        hosts.by_main(lambda: _check_resumed(path, job.name, facts))
        self._go_on()
        if self.reached:
            log.info("%s: resumed at step %d of %d", job.name, self.reached, plan.total)
        if self.skipped:
            log.info("%s: batches %s are left out", job.name, self.skipped)
        self._val = pixels_of(job, "val", self._devices) if "val" in job.data.splits else None
        self._eval_step = make_eval_step(
            job.spec,
            job.data.domain,
            devices=self._devices,
            dtype=settings.DTYPES[config.backbone.dtype],
        )
        self._log: RunLog | NoLog = NoLog()
        if hosts.is_main():
            self._log = RunLog(
                self._workdir, job.name, self.reached, plan.total, config.train.batch_size
            )
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._log.__exit__()
        finally:
            self._checkpoints.__exit__()

    @property
    def reached(self) -> int:
        """The step after which training goes on."""
        return self._checkpoints.latest or 0

    def _go_on(self) -> None:
        """Take up the latest checkpoint; without one, the start of process 0."""
        start, latest = self.job.start(), self._checkpoints.latest
        if latest is None:
            self.state = hosts.by_main(lambda: start)
        else:
            self.state = self._checkpoints.load(latest, start)
        self._meter = Meter(self.index, self._checkpoints.measured(latest))

    def batch(self, step: int) -> int:
        """Return which batch of the stream a step trains on; skipped ones are left out."""
        for skipped in sorted(self.skipped):
            step += skipped <= step
        return step

    def advance(self, done: int, measured: Mapping[str, Any]) -> None:
        """Note what was measured in the step after which `done` are done.

        Raises:
          Diverged: the loss or a gradient is NaN or infinite.
        """
        train = self.job.config.train
        self._meter.add(measured, train.batch_size)
        self._log.advance()
        if done % train.log_every == 0 or done in self.plan.stops:
            self._check(done)
            rate = float(self.plan.schedule(done - 1))
            self._write(done, "train", **self._meter.means(), learning_rate=rate)
            self._meter = Meter(self.index)

    def stop(self, done: int, state: State) -> None:
        """Evaluate the state on validation images, and save it."""
        top1 = 0.0
        if self._val is not None:
            domain, batch_size = self.job.data.domain, self.job.config.train.batch_size
            variables = replicate(state.variables, self._devices)
            judged = judge(
                self._eval_step, variables, self._val, domain, batch_size, len(self._devices)
            )
            found = evaluate(judged, self._val.split.targets, self._val.split.left_out)
            top1 = found["top1"]
            self._write(done, "val", loss=found["loss"], top1=top1)
        self._meter = Meter(self.index)
        self._save(done, state, top1)

    def pause(self, done: int, state: State) -> None:
        """Save the state between two evaluations, with what was measured since the last row."""
        self._check(done)
        self._save(done, state, UNKNOWN)

    def rewind(self, diverged: Diverged) -> None:
        """Go back to the latest checkpoint, and leave the batch out that the loss was lost on.

        Raises:
          Diverged: that has been done too often.
        """
        if len(self.skipped) >= MOST_SKIPPED:
            raise Diverged(
                f"{diverged}\n{len(self.skipped)} batches have been skipped already.", diverged.step
            )
        self.skipped.append(self.batch(diverged.step - 1))
        text = json.dumps(self.skipped) + "\n"
        hosts.by_main(lambda: files.write_atomically(_skipped_path(self._folder), text))
        self._go_on()
        self._log.rewind(self.reached)
        log.warning(
            "%s: back at step %d, without batch %d", diverged, self.reached, self.skipped[-1]
        )

    def _check(self, done: int) -> None:
        """Raise Diverged if the loss of a step since the last row is not finite."""
        if (bad := self._meter.first_bad()) is not None:
            step, latest = done - len(self._meter) + bad + 1, self._checkpoints.latest
            good = "there is no checkpoint yet" if latest is None else f"step {latest}"
            raise Diverged(
                f"{self.job.name}: the loss or a gradient is NaN or infinite in step {step} of "
                f"{self.plan.total}; last good checkpoint: {good} ({self._folder}). Lower "
                "config.optim.learning_rate or add config.optim.warmup, in another --workdir; or "
                "go back and skip the batch: --config.on_nan=rewind.",
                step,
            )

    def _save(self, done: int, state: State, top1: float) -> None:
        self._checkpoints.save(done, state, top1, self._meter.values())

    def exported(self) -> tuple[dict[str, Any], dict[str, float]]:
        """Return the variables that become the domain (NumPy), and their results."""
        best = self.job.config.export == "best"
        step = self._checkpoints.best if best else self._checkpoints.latest
        assert step is not None, "the last step is among the stops"
        if step != int(self.state.step):
            self.state = self._checkpoints.load(step, self.state)
        results = {"step": float(step)}
        if self._val is not None:
            results["val"] = self._checkpoints.top1()[step]
        return trees.to_numpy(self.state.variables), results

    def _write(self, done: int, split: str, **values: float) -> None:
        self._log.write(done, done / self.plan.steps_per_epoch, split, **values)


def _facts(data: DomainData, plan: Plan) -> dict[str, Any]:
    """Return what a training must go on with as it began."""
    spec = dataclasses.asdict(data.spec)
    del spec["dir"]
    images: dict[str, Any] = {name: len(split) for name, split in data.splits.items()}
    images["held out"] = data.held_out.digest if data.held_out.names else None
    facts = {"domain": data.domain.to_json(), "data": spec, "images": images, "decay": plan.decay}
    return json.loads(json.dumps(facts))


def _check_resumed(path: Path, name: str, now: dict[str, Any]) -> None:
    """Write down what a training goes on with, or compare it with what it began with.

    Raises:
      ValueError: the domain, its images or its decay have changed since.
    """
    if path.is_file():
        _check_same(
            json.loads(path.read_text()),
            now,
            f"{name}: its training began with something else ({path})",
            "\nSet it back to resume, use another --workdir, or delete the folder "
            f"{path.with_suffix('')} and this file to train it anew.",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomically(path, json.dumps(now, indent=1) + "\n")


def _check_same(before: dict[str, Any], now: dict[str, Any], told: str, hint: str = "") -> None:
    """Raise ValueError with `told`, what differs, and `hint`, unless nothing does."""
    changed = [
        f"  {part}.{key}: was {before[part].get(key)!r}, is {value!r}"
        for part, entries in now.items()
        for key, value in entries.items()
        if before[part].get(key) != value
    ]
    if changed:
        raise ValueError(f"{told}:\n" + "\n".join(changed) + hint)


class Meter:
    """Means of the steps since the last row; reading them waits for the device.

    Args:
      index: the domain's place in what is measured, where several are trained at once.
      values: of steps before, as `values` returned them.
    """

    def __init__(self, index: int, values: Mapping[str, Sequence[float]] | None = None) -> None:
        self._index = index
        self._values = {name: list(values[name]) if values else [] for name in ("loss", "top1")}
        self._waiting: list[Mapping[str, Any]] = []  # still on the device
        self._images = 0
        self._since = time.monotonic()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._values["loss"])

    def add(self, measured: Mapping[str, Any], images: int) -> None:
        """Add a step of so many images."""
        self._waiting.append(measured)
        self._images += images

    def values(self) -> dict[str, list[float]]:
        """Return "loss" (nats) and "top1" (in [0, 1]) of every step."""
        for measured in jax.device_get(self._waiting):
            for name, known in self._values.items():
                known.append(float(np.ravel(measured[name])[self._index]))
        self._waiting = []
        return {name: list(known) for name, known in self._values.items()}

    def first_bad(self) -> int | None:
        """Return the place of the first step whose loss is not finite, if there is one."""
        bad = np.flatnonzero(~np.isfinite(self.values()["loss"]))
        return int(bad[0]) if len(bad) else None

    def means(self) -> dict[str, float]:
        """Return mean loss (nats), top-1 (percent) and images per second."""
        loss, top1 = (float(np.mean(values)) for values in self.values().values())
        speed = self._images / (time.monotonic() - self._since)
        return {"loss": loss, "top1": 100 * top1, "images_per_second": speed}


def _skipped_path(folder: Path) -> Path:
    return folder / "skipped.json"


def skipped_before(folder: Path) -> list[int]:
    """Return the batches that a domain's training has left out so far; see `Course.rewind`."""
    path = _skipped_path(folder)
    return json.loads(path.read_text()) if path.is_file() else []
