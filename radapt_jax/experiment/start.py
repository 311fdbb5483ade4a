"""Where the training of a domain starts."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path

from radapt_jax.adapters.registry import KINDS
from radapt_jax.compress.fits import SVD
from radapt_jax.compress.join import join
from radapt_jax.compress.moments import moments
from radapt_jax.data.load import DomainData, load_domain
from radapt_jax.evaluation.training_images import in_batches
from radapt_jax.experiment.settings import Settings
from radapt_jax.experiment.taught import images_of_teacher, open_teachers
from radapt_jax.family import checkpoint
from radapt_jax.family.family import Family
from radapt_jax.family.member import Member
from radapt_jax.family.shared import Shared
from radapt_jax.family.start import start_variables
from radapt_jax.models.init import initial_variables
from radapt_jax.train.job import Job
from radapt_jax.train.options import check_export
from radapt_jax.train.teachers import check_fits, teacher_of
from radapt_jax.utils import trees

log = logging.getLogger(__name__)
TEACHERS = "teachers"  # the entry of the config


def open_family(settings: Settings, workdir: Path) -> Family | None:
    """Return the workdir's family, or a new one on init_from's weights; None: still to be made."""
    if (workdir / "shared").is_dir():
        return Family.load(workdir)
    if not settings.init_from or settings.compression.kind:
        return None
    shared = open_shared(settings)
    source = [shared.source] if shared.source in settings.domains else []
    if source:
        raise ValueError(
            f"domain {source[0]!r} is the one {settings.init_from} was pre-trained on; the family "
            "has it already. To train it again, give it another name: config.options.<name> = "
            f"{{'dataset': {source[0]!r}}}."
        )
    if _joins(settings):
        if shared.basis is None:
            raise ValueError(
                f"{settings.init_from} shares no β that a domain could join; compress it jointly "
                "first: configs/compress.py."
            )
        return Family.load(settings.init_from)
    return with_source(settings, shared)


def open_shared(settings: Settings) -> Shared:
    """Return init_from's shared weights, if they are what the config asks for."""
    shared = checkpoint.load_shared(settings.init_from)
    if shared.backbone != settings.backbone:
        raise ValueError(
            f"{settings.init_from} holds {shared.backbone}; the config asks for "
            f"{settings.backbone}. Set --config.backbone.name, and width or options if it has any "
            "(--config.backbone.width, --config.backbone.options.NAME), to what is there."
        )
    if settings.source_adapter is not None and shared.adapter != settings.source_adapter:
        raise ValueError(
            f"method {settings.method!r} wants shared weights pre-trained with adapter "
            f"{settings.source_adapter!r}; {settings.init_from} was with {shared.adapter!r}. Name "
            "another --config.init_from, or a recipe for what is there: configs/series.py for "
            "series adapters inside, configs/series_off_the_shelf.py for none."
        )
    if settings.method == "series" and shared.adapter == "none":
        log.warning(
            "%s was pre-trained without series adapters inside: the papers call this 'series, off "
            "the shelf' (configs/series_off_the_shelf.py), and method 'series' the other.",
            settings.init_from,
        )
    if shared.adapter not in ("none", settings.adapter):
        log.warning(
            "%s was pre-trained with %s adapters; method %r leaves them out, and its features and "
            "norms were made for them.",
            settings.init_from,
            shared.adapter,
            settings.method,
        )
    return shared


def with_source(settings: Settings, shared: Shared) -> Family:
    """Return a family of init_from's shared weights and its source domain, if that is there."""
    there = checkpoint.list_members(settings.init_from)
    names = [name for name in there if name == shared.source]
    family = Family(shared, [checkpoint.load_member(settings.init_from, name) for name in names])
    for name in names:
        source, seen = family[name].domain, settings.data
        if (source.size, source.resize) != (seen["size"], seen["resize"]):
            log.warning(
                "%s was trained at %d px, of images resized to %d; this run has %d and %d. For its "
                "sizes: --config.data.size=%d --config.data.resize=%d",
                *(name, source.size, source.resize, seen["size"], seen["resize"]),
                *(source.size, source.resize),
            )
    return family


def is_finished(settings: Settings, family: Family | None, name: str) -> bool:
    """Tell whether the workdir's family has this domain already, and as the kind it is to be."""
    if family is None or name not in family:
        return False
    kind = settings.compression.kind or settings.adapter
    known = family[name].spec.adapter.kind == kind
    return known or not (settings.compression.kind or _joins(settings))


def _joins(settings: Settings) -> bool:
    """Tell whether domains join a family that shares variables of adapters."""
    return KINDS[settings.adapter].shares()


def open_job(settings: Settings, name: str) -> Callable[[Family | None], Job]:
    """Open a domain's images; return what makes a job of it once the family is there.

    Images that its teacher was not trained on, if it has one, are held out again.

    Raises:
      ValueError: its teacher is not there, or is of other classes or images.
    """
    dense = taught_by = None
    if _joins(settings) and settings.compression.dense:
        dense = checkpoint.load_member(settings.compression.dense, name)
    if settings.teachers:
        taught_by = open_teachers(settings.teachers, [name], TEACHERS)
    known = taught_by[name] if taught_by else dense
    if known and known.data is not None:
        settings.check_teachers_images(known.data, known.held_out)
    with images_of_teacher(settings.teachers, name) if taught_by else contextlib.nullcontext():
        data = load_domain(
            name,
            settings.data,
            settings.of_domain(name),
            settings.cache,
            known.record if known else None,
            multiple_of=settings.backbone.multiple_of,
        )
    if taught_by and "val" not in data.splits:
        log.warning("%s: no images validate, as its teacher was trained on all of them.", name)
    check_export(settings.options, name, "val" in data.splits)
    if known:
        run = settings.teachers if taught_by else settings.compression.dense
        check_fits(known.domain, data.domain, run)
    if taught_by is None:
        return lambda family: start_job(settings, family, data, dense)
    teacher = teacher_of(taught_by, name)

    def taught(family: Family | None) -> Job:
        job = start_job(settings, family, data, None)
        return dataclasses.replace(job, teacher=teacher, temperature=settings.temperature)

    return taught


def start_job(
    settings: Settings, family: Family | None, data: DomainData, dense: Member | None
) -> Job:
    """Return where a domain's training starts: at random, or from the family's shared weights.

    See `family.start`. A domain that joins a compressed family starts from the projection of its
    dense adapters, if they are given.
    """
    options, domain = settings.options, data.domain
    joined = family is not None and _joins(settings)
    spec = settings.network(family.shared.basis if family is not None and joined else None)
    if settings.start == "random":
        fresh = initial_variables(spec, domain.num_classes, options.seed)
        return Job(options, data, spec, fresh, settings.label)
    assert family is not None, "config.read wants init_from for start='backbone'"
    if dense is None:
        start = start_variables(family, spec, domain.name, domain.num_classes, options.seed)
        return Job(options, data, spec, start, settings.label)
    how, by = settings.compression, None
    if how.fit != SVD:
        alone, train = Family(family.shared, [dense]), data.splits["train"]
        by = moments(alone, domain.name, train, **in_batches(how.moments))
    member, error = join(family, dense, moments=by)
    log.info("%s: joins with a relative error of %.3f of its α.", domain.name, error)
    results = {"projection_error": error}
    if "val" in dense.results:
        results["dense_val"] = dense.results["val"]
    params = trees.to_numpy(family.shared.params_for(spec))
    variables = {**member.variables, "params": params}
    return Job(options, data, spec, variables, settings.label, results)
