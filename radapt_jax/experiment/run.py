"""One run: train every domain of a config, save each, evaluate all."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from radapt_jax.evaluation.result import Result
from radapt_jax.experiment.compressed import (
    begin_compressed,
    compressed_job,
    open_compressed,
    open_dense,
)
from radapt_jax.experiment.config import read
from radapt_jax.experiment.curve import chosen
from radapt_jax.experiment.distilled import run_distilled
from radapt_jax.experiment.failures import Failures
from radapt_jax.experiment.resume import check_same, remember, without_places
from radapt_jax.experiment.settings import Settings
from radapt_jax.experiment.start import is_finished, open_family, open_job
from radapt_jax.family import checkpoint
from radapt_jax.family.family import Family
from radapt_jax.family.shared import Shared
from radapt_jax.report import write
from radapt_jax.train.job import Job
from radapt_jax.train.lock import check_shared, held
from radapt_jax.train.loop import train_domains
from radapt_jax.train.place import InWorkdir
from radapt_jax.train.signals import Stopping
from radapt_jax.utils import distributed, files
from radapt_jax.utils.files import check_writable

log = logging.getLogger(__name__)


def train_and_evaluate(config: ConfigDict, workdir: str | Path) -> list[Result]:
    """Train the config's domains one after another, then evaluate the family on its test splits.

    Started again with the same workdir, it skips finished domains and goes on with the one it was
    stopped in, from its latest checkpoint. Of several domains, one that fails does not stop the
    others: the family is evaluated without it, and the error comes last. Domains whose shared
    weights are distilled are trained in the same steps; see `distilled`.

    Several processes (see radapt_jax.utils.distributed) share each batch; all are to call this,
    and get the same rows. Process 0 writes.

    Args:
      config: see configs/base.py.
      workdir: where everything goes (see family.checkpoint, train.log and report.write); all
        processes see it.

    Returns:
      One row a domain, the source included.

    Raises:
      ValueError: a config value, a domain's images, or a workdir of another run.
      FileNotFoundError: `init_from` or a domain's images are not there.
      FloatingPointError: a loss or a gradient is NaN or infinite.
      MemoryError: the device has no room for a step.
      Stopped: SIGTERM or SIGINT came; what is trained was saved.
      DomainsFailed: some of several domains could not be trained; the others were.
      BlockingIOError: another process trains in the workdir.
      OSError: nothing can be written to the workdir or the cache, or something could not be saved;
        what was saved before is as it was.
    """
    workdir = files.located(workdir)
    settings = read(config, len(distributed.devices()), distributed.place()[1])
    with Stopping() as stopping, distributed.alone(), contextlib.ExitStack() as stack:
        distributed.check_same(without_places(config), "config")
        distributed.by_main(lambda: _begin(workdir, stack))
        with distributed.agreed():
            check_shared(workdir)
        check_same(config, workdir)
        run = _run if settings.lessons is None else run_distilled
        rows = run(settings, workdir, stopping, lambda: remember(config, workdir))
        distributed.by_main(stack.close)
        return rows


def _begin(workdir: Path, stack: contextlib.ExitStack) -> None:
    """Lock the workdir, and repair what killed saves left there."""
    check_writable(workdir, "Name a folder for the run: --workdir=DIR.")
    stack.enter_context(held(workdir))
    for place in (workdir, workdir / "compressed"):
        checkpoint.clean(place)


def _run(
    settings: Settings, workdir: Path, stopping: Stopping, begin: Callable[[], None]
) -> list[Result]:
    """Train and evaluate; `begin` notes the config once it is known that there are images."""
    compresses = bool(settings.compression.kind)
    family = open_family(settings, workdir)
    compressed = None
    if compresses:
        dense = open_dense(settings)
        settings = chosen(settings, dense, workdir)
        compressed = open_compressed(settings, workdir, dense)
    wanted = compressed.dense.names if compressed else settings.domains
    is_first = family is None and compressed is None  # the first domain's filters will be shared
    failures = Failures(wanted, essential=wanted[0] if is_first else None)
    jobs: dict[str, Callable[[Family | None], Job]] = {}
    for name in wanted:  # all images are sought before training
        if is_finished(settings, family, name):
            log.info("%s: finished before, kept.", name)
            continue
        with failures.of(name), distributed.agreed():
            if compressed:
                jobs[name] = compressed_job(settings, compressed, name)
            else:
                jobs[name] = open_job(settings, name)
    distributed.check_same(list(jobs), "domains to train")
    if failures.all:
        failures.tell([])
    distributed.by_main(begin)
    if compressed is not None:
        if family is None:
            family = begin_compressed(settings, compressed, workdir)
    elif family is not None and not (workdir / "shared").is_dir():
        family.save(workdir)
    waiting, together = list(jobs), settings.options.together
    for start in range(0, len(waiting), together):
        ready = []
        for name in waiting[start : start + together]:
            with failures.of(name), distributed.agreed():
                ready.append(jobs[name](family))
        family = _train(family, ready, workdir, failures, stopping)
    assert family is not None, "without its source domain, a run has ended"
    rows = settings.evaluate(family)
    distributed.by_main(lambda: write.write(rows, workdir))
    failures.tell(rows)
    return rows


def _train(
    family: Family | None,
    jobs: Sequence[Job],
    workdir: Path,
    failures: Failures,
    stopping: Stopping,
) -> Family | None:
    """Train domains, at once if there are several, and return the family with them in it.

    If that fails they go on one by one, so that it is known which it was.
    """
    left = {job.name: job for job in jobs}
    if len(jobs) > 1:
        try:
            for job, variables, results in train_domains(jobs, InWorkdir(workdir), stopping):
                family = _add(family, job, variables, results, workdir)
                del left[job.name]
        except Exception as error:
            log.warning("%s: %s They go on one by one.", ", ".join(left), error)
    for job in left.values():
        with failures.of(job.name):
            for _, variables, results in train_domains([job], InWorkdir(workdir), stopping):
                family = _add(family, job, variables, results, workdir)
    return family


def _add(
    family: Family | None,
    job: Job,
    variables: dict[str, Any],
    results: dict[str, float],
    workdir: Path,
) -> Family:
    """Add a domain that is trained to the family (made here if it is the source), and save it."""
    name = job.name
    if family is None:
        family = Family(
            Shared(
                variables["params"], job.spec.backbone, source=name, adapter=job.spec.adapter.kind
            )
        )
    member = job.member(variables, results, shares=name == family.shared.source)
    if {"dense_val", "val"} <= member.results.keys():
        lost = member.results["dense_val"] - member.results["val"]
        log.info("%s: %.2f points below its own dense α on validation images.", name, lost)
    before = [family[name]] if name in family else []
    family.add(name, member)
    try:
        checkpoint.save_member(family[name], workdir)
    except BaseException:  # what is not saved is not there
        family.remove(name)
        for member in before:
            family.add(name, member)
        raise
    if name == family.shared.source:  # last: shared weights on disk mean that the source is there
        checkpoint.save_shared(family.shared, workdir)
    return family
