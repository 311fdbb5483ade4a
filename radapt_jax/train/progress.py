"""One domain's way through its training: where it goes on, what is written, what comes of it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from radapt_jax.evaluation.evaluate import evaluate, predict_split
from radapt_jax.evaluation.step import make_eval_step
from radapt_jax.models.spec import DTYPES
from radapt_jax.train.checkpoints import TrainingCheckpoints
from radapt_jax.train.devices import pixels_of
from radapt_jax.train.job import Job
from radapt_jax.train.log import Meter, NoLog, RunLog
from radapt_jax.train.resume import (
    check_resumed,
    check_same_facts,
    facts_of,
    skipped_before,
    skipped_path,
)
from radapt_jax.train.step import TrainState
from radapt_jax.utils import distributed, files, trees
from radapt_jax.utils.distributed import replicate

log = logging.getLogger(__name__)
UNKNOWN = -1.0  # validation top-1 of a state that was saved between two evaluations
MOST_SKIPPED = 10  # batches that a training may leave out


class Diverged(FloatingPointError):
    """A loss or a gradient is NaN or infinite; `step` is the first in which it was."""

    def __init__(self, told: str, step: int) -> None:
        super().__init__(told)
        self.step = step


class Progress:
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

    state: TrainState
    index = 0

    def __init__(self, job: Job, workdir: Path, devices: Sequence[jax.Device]) -> None:
        self.job, self.plan = job, job.plan
        self._workdir, self._devices = workdir, devices
        self._folder = workdir / "training" / job.name
        self.skipped = skipped_before(self._folder)
        frozen = ("params",) if self.plan.decay["filters"] is None else ()
        self._checkpoints = TrainingCheckpoints(self._folder, frozen)

    def __enter__(self) -> Progress:
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
        facts = facts_of(job.data, plan)
        mains = distributed.by_main(lambda: facts)
        with distributed.agreed():
            check_same_facts(mains, facts, f"{job.name}: this process has others than process 0")
        path = self._folder.with_name(f"{job.name}.json")
        distributed.by_main(lambda: check_resumed(path, job.name, facts))
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
            dtype=DTYPES[config.backbone.dtype],
        )
        self._log: RunLog | NoLog = NoLog()
        if distributed.is_main():
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
            self.state = distributed.by_main(lambda: start)
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

    def stop(self, done: int, state: TrainState) -> None:
        """Evaluate the state on validation images, and save it."""
        top1 = 0.0
        if self._val is not None:
            domain, batch_size = self.job.data.domain, self.job.config.train.batch_size
            variables = replicate(state.variables, self._devices)
            judged = predict_split(
                self._eval_step, variables, self._val, domain, batch_size, len(self._devices)
            )
            found = evaluate(judged, self._val.split.targets, self._val.split.left_out)
            top1 = found["top1"]
            self._write(done, "val", loss=found["loss"], top1=top1)
        self._meter = Meter(self.index)
        self._save(done, state, top1)

    def pause(self, done: int, state: TrainState) -> None:
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
        distributed.by_main(lambda: files.write_atomically(skipped_path(self._folder), text))
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

    def _save(self, done: int, state: TrainState, top1: float) -> None:
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
