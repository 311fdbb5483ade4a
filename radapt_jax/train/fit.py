"""Training of one domain from Python: arrays in, a domain of a family out."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from pathlib import Path
from typing import Any

from radapt_jax.adapters.options import Options
from radapt_jax.adapters.parallel import Parallel
from radapt_jax.adapters.registry import kind_of
from radapt_jax.data.arrays import DomainOptions, load_arrays
from radapt_jax.data.domain import check_apart, check_name
from radapt_jax.data.load import DomainData
from radapt_jax.family.family import Family
from radapt_jax.family.start import start_variables
from radapt_jax.models.backbone import Placement
from radapt_jax.models.spec import ModelSpec
from radapt_jax.train import optim
from radapt_jax.train.distill import KINDS, Teacher
from radapt_jax.train.history import History
from radapt_jax.train.job import TEMPERATURE, Job
from radapt_jax.train.lock import check_shared, held
from radapt_jax.train.loop import train_domains
from radapt_jax.train.options import TrainOptions, check_export, check_place
from radapt_jax.train.place import InMemory, InWorkdir, Place
from radapt_jax.train.signals import Stopping
from radapt_jax.train.teachers import check_fits, teacher_of
from radapt_jax.utils import distributed, files
from radapt_jax.utils.checks import check

log = logging.getLogger(__name__)
FREE = ("log_every", "on_nan", "on_device", "together")  # options that may change in a workdir
PLAIN = {  # what a training without adapters is called, by what it trains
    frozenset({"head"}): "linear",
    frozenset({"norms", "head"}): "norm",
    frozenset({"filters", "norms", "head"}): "finetune",
    frozenset(optim.LABELS): "finetune",
}


def fit(
    family: Family,
    name: str,
    images: Any,
    labels: Any,
    *,
    adapter: Options = Parallel(),  # noqa: B008, it is frozen
    placement: Placement = Placement(),  # noqa: B008
    domain: DomainOptions = DomainOptions(),  # noqa: B008
    options: TrainOptions = TrainOptions(),  # noqa: B008
    validation: Any = 0.1,
    teacher: Family | None = None,
    temperature: float = TEMPERATURE,
    method: str = "",
    replace: bool = False,
    progress: bool = True,
    workdir: str | Path | None = None,
) -> History:
    """Train a domain on images in memory, and add it to a family.

    All devices share a batch (one takes it where `options.together` is more than 1). Filters, norms
    and statistics start as those of the family and its source domain, as in a run of train.py. With
    the same images for training and validation, in the same order, sizes, options and seed, it is
    the same domain.

    Args:
      family: whose shared weights the domain is trained on; it gets the domain.
      name: of the domain.
      images: uint8 (n, h, w, 3), of NumPy or JAX; or n arrays, PIL images, paths or encoded bytes,
        of any sizes. They are resized and decoded as those of a folder.
      labels: n whole numbers from 0, or n class names.
      adapter: its options tell its kind. `NoAdapter()` trains what `options.decay` does not freeze:
        the head alone, the norms too, or, from the family's filters, everything.
      placement: which convolutions carry the adapter; default: the backbone's usual ones.
      domain: classes, sizes, cropping, mirroring, normalisation.
      options: of training.
      validation: share of each class that is held out, 0 or None for none; or images and labels.
      teacher: a family whose domain of this name was trained on the same images in the same order,
        with the same held out: the domain learns from it; see `step.Lesson`. It may be `family`
        itself, whose domain is replaced in the end.
      temperature: in that.
      method: what tables call it; default: the adapter's kind, or "linear", "norm", "finetune".
      replace: train anew a domain that the family has.
      progress: show a progress bar.
      workdir: a folder for states to resume from, metrics and events; started again with the same
        arguments, the training goes on there. None: nothing is written.

    Returns:
      Losses and top-1 by step.

    Raises:
      ValueError: the family has a domain of that name, the images cannot be read, the labels do not
        fit them, an option is out of range, the teacher does not fit, or the workdir is of another
        training. The family is as it was.
      FloatingPointError: a loss or a gradient is NaN or infinite.
      MemoryError: the device has no room for a step.
      KeyboardInterrupt: also `Stopped`; in a workdir, what was trained is saved.
      BlockingIOError: another process trains in the workdir.
      OSError: the workdir cannot be written.
    """
    _check_name(family, name, replace)
    if teacher is not None:
        check("temperature", temperature, KINDS["temperature"])
        _check_alone(options)
    check_place(options, len(distributed.devices()), distributed.place()[1])
    spec = ModelSpec(family.shared.backbone, _on_basis(adapter, family), placement)
    source = family.shared.source
    facts = domain.like(family[source].domain if source is not None and source in family else None)
    data = load_arrays(
        name,
        (images, labels),
        validation,
        facts,
        multiple_of=spec.backbone.multiple_of,
        bar=progress,
    )
    check_export(options, name, "val" in data.splits)
    variables = start_variables(family, spec, name, data.domain.num_classes, options.seed)
    job = Job(options, data, spec, variables, method or _method(spec, options))
    if teacher is not None:
        job = dataclasses.replace(job, teacher=_teacher(teacher, data), temperature=temperature)
    return _train(job, family, workdir, bar=progress)


def _check_alone(options: TrainOptions) -> None:
    """Raise ValueError for options with which no domain learns from a network."""
    if options.together > 1 or options.views:
        raise ValueError(
            f"found a teacher with together {options.together} and views {options.views}; expected "
            "1 and 0: both networks see every batch of one domain."
        )


def _teacher(family: Family, data: DomainData) -> Teacher:
    """Return a domain's teacher; ValueError if it has none, or one that does not fit."""
    name = data.domain.name
    if name not in family:
        raise ValueError(
            f"found a teacher without a domain {name!r}; it has {family.domains}. Train it there "
            "under this name, on the same images."
        )
    member, images = family[name], {split: len(it) for split, it in data.splits.items()}
    there = {split: member.images.get(split, 0) for split in images}
    check_fits(member.domain, data.domain, "the teacher's family")
    if member.held_out is None:
        log.warning("%s: it is not known which images its teacher was trained on.", name)
    elif member.held_out != data.held_out or there != images:
        raise ValueError(
            f"domain {name!r}: its teacher was trained on other images ({there}, with "
            f"{member.held_out} held out) than there are now ({images}, with {data.held_out} held "
            "out), so that it may have seen those that validate. Train the teacher by `fit`, too, "
            "on the same images in the same order, with the same validation."
        )
    return teacher_of(family, name)


def _train(job: Job, family: Family, workdir: str | Path | None, *, bar: bool) -> History:
    """Train a domain, add it to the family, and return what was measured."""
    with contextlib.ExitStack() as stack:
        stopping = Stopping()  # unless it is entered, signals do as they always do
        place: Place = InMemory(bar=bar)
        if workdir is not None:
            folder = files.located(workdir)
            stack.enter_context(stopping)
            stack.enter_context(distributed.alone())
            distributed.by_main(lambda: _lock(folder, stack))
            with distributed.agreed():
                check_shared(folder)
            place = InWorkdir(folder, bar=bar, also=_began_with(job, family))
        for _, variables, results in train_domains([job], place, stopping):
            family.add(job.name, job.member(variables, results))
        return History.of_rows(place.rows(job.name))


def _lock(workdir: Path, stack: contextlib.ExitStack) -> None:
    files.check_writable(workdir, "Name another workdir.")
    stack.enter_context(held(workdir))


def _check_name(family: Family, name: str, replace: bool) -> None:
    check_name(name)
    check_apart([*(it for it in family if it != name), name])
    if name == family.shared.source:
        raise ValueError(
            f"domain {name!r} is the one that the shared weights were pre-trained on, and new "
            "domains start from its norms; give the new one another name."
        )
    if name in family and not replace:
        raise ValueError(
            f"the family has a domain {name!r} already; give the new one another name, or replace "
            "it: replace=True."
        )


def _on_basis(adapter: Options, family: Family) -> Options:
    """Return the options of an adapter; where its kind shares variables, on those of the family."""
    if not kind_of(adapter).shares():
        return adapter
    basis = family.shared.basis
    if basis is None or basis.kind != adapter.kind:
        raise ValueError(
            f"found {adapter.kind} adapters, and a family that has no shared variables of them. "
            f"Compress a family first: radapt_jax.compress_family(family, {adapter.kind!r}, ...)."
        )
    own = {name: getattr(adapter, name) for name in adapter.training_only}
    return dataclasses.replace(basis, **own)


def _method(spec: ModelSpec, options: TrainOptions) -> str:
    """Return what tables call a training that has no name."""
    if spec.kind.leaves:
        return spec.adapter.kind
    there = optim.labels_of(spec)
    return PLAIN.get(frozenset(it for it in there if options.decay[it] is not None), "none")


def _began_with(job: Job, family: Family) -> dict[str, Any]:
    """Return what a training in a workdir must keep, beside its domain and images."""
    return {
        "options": {key: it for key, it in vars(job.options).items() if key not in FREE},
        "network": job.spec.to_json(),
        "family": {"shared": family.shared.fingerprint(joint=True)},
    }
