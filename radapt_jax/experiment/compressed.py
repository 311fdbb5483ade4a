"""Runs that compress a family and fine-tune it."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from radapt_jax.compress import ranks as compress_ranks
from radapt_jax.compress.family import compress_family, ranks_of
from radapt_jax.compress.fits import SVD
from radapt_jax.compress.moments import Moments, moments
from radapt_jax.compress.which import alphas_of, compressible, targets
from radapt_jax.data.load import DomainData, load_splits
from radapt_jax.evaluation.sources import open_source
from radapt_jax.evaluation.statistics import renewed
from radapt_jax.evaluation.training_images import in_batches
from radapt_jax.experiment.settings import Compression, Settings
from radapt_jax.family.family import Family
from radapt_jax.family.member import Member
from radapt_jax.family.rounding import rounding_of
from radapt_jax.report import plots, results, write
from radapt_jax.report.write import write_ranks
from radapt_jax.train.job import Job
from radapt_jax.train.options import check_export
from radapt_jax.train.teachers import teacher_of
from radapt_jax.utils import distributed, trees

log = logging.getLogger(__name__)


class Dense(NamedTuple):
    """What is compressed.

    Args:
      family: as it was trained.
      names: of the domains to compress.
      images: opens those of a domain, once.
      moments: takes those of a domain, once.
    """

    family: Family
    names: list[str]
    images: Callable[[str], DomainData]
    moments: Callable[[str], Moments]


class Opened(NamedTuple):
    """A compressed family and what it was made of.

    Args:
      family: the compressed one, before fine-tuning.
      dense: what was compressed.
    """

    family: Family
    dense: Dense


def open_dense(settings: Settings) -> Dense:
    """Return init_from's family, and which of its domains are compressed."""
    family, how = Family.load(settings.init_from), settings.compression
    names = list(settings.domains) or compressible(family, how.kind)
    if own := [name for name in names if family[name].has_own_weights]:
        raise ValueError(
            f"found {own} with filters of their own; expected domains on the shared weights, since "
            "compressed domains stand on these. Leave them out of config.domains."
        )
    return dense_of(settings, family, names)


def dense_of(settings: Settings, family: Family, names: list[str]) -> Dense:
    """Return what is compressed of a family, and how images and moments of it are had."""
    how = settings.compression
    images = functools.cache(lambda name: _images(settings, family[name]))

    def of_images(name: str) -> Moments:
        return moments(family, name, images(name).splits["train"], **in_batches(how.moments))

    return Dense(family, names, images, functools.cache(of_images))


def open_compressed(settings: Settings, workdir: Path, dense: Dense) -> Opened:
    """Return a family compressed. Once begun in this workdir, it is read from there."""
    names, how = dense.names, settings.compression
    if not (workdir / "compressed" / "shared").is_dir():
        return Opened(compressed_as(how, dense), dense)
    begun = Family.load(workdir / "compressed")
    for name in names:
        if begun[name].spec.adapter.kind != how.kind:
            raise ValueError(
                f"the compression in {workdir} was begun without domain {name!r}. Use another "
                "--workdir, or let it join: configs/join.py."
            )
    return Opened(begun, dense)


def compressed_as(how: Compression, dense: Dense) -> Family:
    """Return the family compressed in some way; where adapters stay dense, a copy."""
    family = dense.family
    if how.kind not in targets():
        alphas_of(family, dense.names, kind=how.kind)  # all of them are there, and of that kind
        return Family(family.shared, [family[name] for name in family])
    by = None if how.fit == SVD else {name: dense.moments(name) for name in dense.names}
    return compress_family(
        family, how.kind, how.ranks, domains=dense.names, moments=by, fit=how.fit
    )


def begin_compressed(settings: Settings, opened: Opened, workdir: Path) -> Family:
    """Save the compressed family, evaluate it before fine-tuning, and return the one to fill."""
    compressed, names = opened.family, opened.dense.names
    compressed.save(workdir / "compressed")
    rows = settings.evaluate(rounded_family(opened, settings.options.bits))
    distributed.by_main(lambda: write.write(rows, workdir / "compressed"))
    log.info("before fine-tuning:\n%s", results.table(rows))
    basis: Any = compressed.shared.basis
    if basis is not None:
        alphas = alphas_of(opened.dense.family, names, kind=basis.kind)
        highest = ranks_of(opened.dense.family, names)
        spectra = compress_ranks.spectra(list(alphas.values()), highest)
        distributed.by_main(lambda: plots.plot_spectra(spectra, workdir / "spectra.png"))
        log.info(
            "%s", distributed.by_main(lambda: write_ranks(spectra, dict(basis.ranks), workdir))
        )
    others = [compressed[name] for name in compressed if name not in names]
    begun = Family(compressed.shared, others)
    begun.save(workdir)
    return begun


def compressed_job(settings: Settings, opened: Opened, name: str) -> Callable[[Family | None], Job]:
    """Open a compressed domain's images; return what makes the job that fine-tunes it."""
    compressed, how, data = opened.family, settings.compression, opened.dense.images(name)
    renew(opened, name, settings.options.bits, how.statistics)
    check_export(settings.options, name, "val" in data.splits)
    spec, variables = compressed[name].spec, trees.to_numpy(compressed.variables(name))
    job = Job(settings.options, data, spec, variables, settings.label)
    if how.distill:
        teacher = teacher_of(opened.dense.family, name)
        job = dataclasses.replace(job, teacher=teacher, temperature=how.temperature)
    return lambda _: job


def _images(settings: Settings, member: Member) -> DomainData:
    """Open the images that a dense domain was trained on."""
    spec, source = open_source(member, or_in=settings.data["dir"])
    settings.check_same_images(spec)
    splits, held_out = load_splits(spec, source, settings.cache, member.record)
    return DomainData(settings.with_decay(member.domain), splits, spec, held_out)


def renew(opened: Opened, name: str, bits: int, count: int) -> None:
    """Take statistics of a domain's norms anew in a compressed family, where `count` is not 0.

    They are those that it has when its adapters are rounded, if they are to be.
    """
    if count:
        train = opened.dense.images(name).splits["train"]
        family, rounding = opened.family, rounding_of(bits)
        family.add(name, renewed(family, name, train, **in_batches(count), rounding=rounding))


def rounded_family(opened: Opened, bits: int) -> Family:
    """Return a compressed family whose compressed domains are rounded, if they are to be."""
    family, names = opened.family, opened.dense.names
    members = [_rounded(family[it], bits) if it in names else family[it] for it in family]
    return Family(family.shared, members)


def _rounded(member: Member, bits: int) -> Member:
    rounding = rounding_of(bits)
    return member if rounding is None else member.rounded(rounding)
