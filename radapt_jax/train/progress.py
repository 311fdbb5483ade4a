"""One domain's way through its training: where it goes on, what is written, what comes of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from radapt_jax.evaluation.evaluate import predict_split, scores_of
from radapt_jax.evaluation.step import make_eval_step
from radapt_jax.train.devices import pixels_of
from radapt_jax.train.job import Job
from radapt_jax.train.log import Meter
from radapt_jax.train.place import Place
from radapt_jax.train.resume import check_same_facts, facts_of
from radapt_jax.utils import distributed, trees
from radapt_jax.utils.distributed import replicate

log = logging.getLogger(__name__)
LARGE = 0.5  # share of their filters from which adapters are hardly small weights
UNKNOWN = -1.0  # validation top-1 of a state that was saved between two evaluations
MOST_SKIPPED = 10  # batches that a training may leave out


class Diverged(FloatingPointError):
    """A loss or a gradient is NaN or infinite; `step` is the first in which it was."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


class Progress:
    """A domain that is being trained; a context manager, which is entered before the first step.

    Args:
      job: the domain.
      place: where its states and metrics are kept.
      devices: for evaluation.
      start: the state before the first step; default: the job's.

    Attributes:
      index: its place among those that are trained at once.
      skipped: batches that are left out.
      state: after the last step that is saved, once this is entered: a `TrainState`, or what has
        its `step` and `variables`.
    """

    state: Any
    index = 0

    def __init__(
        self, job: Job, place: Place, devices: Sequence[jax.Device], start: Any = None
    ) -> None:
        self.job, self.plan = job, job.plan
        self._place, self._devices, self._start = place, devices, start
        self.skipped = place.skipped(job.name)
        frozen = ("params",) if self.plan.decay["filters"] is None else ()
        self._checkpoints = place.checkpoints(job.name, frozen)

    def __enter__(self) -> Progress:
        job, plan, options = self.job, self.plan, self.job.options
        log.info(
            "%s: %s, %d classes, %d training images, %d steps, decay %s",
            job.name,
            job.method,
            job.data.domain.num_classes,
            len(job.data.splits["train"]),
            plan.total,
            plan.decay,
        )
        if job.share > LARGE:
            log.warning(
                "%s: its %s adapters have %.2f times the parameters of the filters that carry "
                "them, since a dense one on a 1x1 convolution is as large as the convolution. "
                "Low-rank or joint adapters are smaller, and so are those on fewer convolutions.",
                job.name,
                job.spec.adapter.kind,
                job.share,
            )
        facts = facts_of(job)
        expected = distributed.by_main(lambda: facts)
        with distributed.agreed():
            check_same_facts(expected, facts, f"{job.name}: this process differs from process 0")
        self._place.begin(job.name, facts)
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
            dtype=options.compute_dtype,
        )
        self._log = self._place.log(job.name, self.reached, plan.total, options.batch_size)
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
        start, latest = self._start or self.job.start(), self._checkpoints.latest
        if latest is None:
            self.state = distributed.by_main(lambda: self.job.settled(start))
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
        options = self.job.options
        self._meter.add(measured, options.batch_size)
        self._log.advance()
        if done % options.log_every == 0 or done in self.plan.evaluations:
            self._check(done)
            rate = float(self.plan.schedule(done - 1))
            self._write(done, "train", **self._meter.means(), learning_rate=rate)
            self._meter = Meter(self.index)

    def evaluate(self, done: int, state: Any) -> None:
        """Evaluate the state on validation images, and save it."""
        top1 = 0.0
        if self._val is not None:
            domain, batch_size = self.job.data.domain, self.job.options.batch_size
            variables = replicate(dict(self.job.kept(self._finished(state))), self._devices)
            judged = predict_split(
                self._eval_step, variables, self._val, domain, batch_size, len(self._devices)
            )
            found = scores_of(judged, self._val.split.targets, self._val.split.left_out)
            top1 = found.top1
            self._write(done, "val", loss=found.loss, top1=top1)
        self._meter = Meter(self.index)
        self._write_state(done, state, top1)

    def save(self, done: int, state: Any) -> None:
        """Save the state between two evaluations, with what was measured since the last row."""
        self._check(done)
        self._write_state(done, state, UNKNOWN)

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
        self._place.skip(self.job.name, self.skipped)
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
                f"{self.plan.total}; last good checkpoint: {good} "
                f"({self._place.where(self.job.name)}). Lower learning_rate or add warmup "
                "(train.py: config.optim.learning_rate, config.optim.warmup), in another workdir; "
                "or go back and skip the batch: on_nan='rewind' (--config.on_nan=rewind).",
                step,
            )

    def _write_state(self, done: int, state: Any, top1: float) -> None:
        self._checkpoints.save(done, state, top1, self._meter.values())

    def exported(self) -> tuple[dict[str, Any], dict[str, float]]:
        """Return the variables that become the domain (NumPy), and their results."""
        best = self.job.options.export == "best"
        step = self._checkpoints.best if best else self._checkpoints.latest
        assert step is not None, "the last step is among the evaluations"
        if step != int(self.state.step):
            self.state = self._checkpoints.load(step, self.state)
        results = {"step": float(step)}
        if self._val is not None:
            results["val"] = self._checkpoints.top1()[step]
        return trees.to_numpy(self._finished(self.state)), results

    def _finished(self, state: Any) -> dict[str, Any]:
        """Return the variables that are evaluated, and become the domain."""
        if not self.job.options.average:
            return state.variables
        return distributed.by_main(lambda: self.job.averaged(state))

    def _write(self, done: int, split: str, **values: float) -> None:
        self._log.write(done, done / self.plan.steps_per_epoch, split, **values)
