"""Runs that compress a family and fine-tune it."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from radapt_jax.compress import ranks as compress_ranks
from radapt_jax.compress.family import compress_family
from radapt_jax.compress.fits import SVD
from radapt_jax.compress.moments import moments
from radapt_jax.compress.which import alphas_of, compressible, targets
from radapt_jax.data.load import DomainData, load_splits
from radapt_jax.evaluation.evaluate import open_source
from radapt_jax.evaluation.statistics import renewed
from radapt_jax.evaluation.training_images import BATCH
from radapt_jax.experiment.settings import Settings
from radapt_jax.family.family import Family
from radapt_jax.family.member import Member
from radapt_jax.family.rounding import WHOLE, Rounding
from radapt_jax.report import plots, results, write
from radapt_jax.report.write import write_ranks
from radapt_jax.train.distill import Teacher
from radapt_jax.train.job import Job
from radapt_jax.train.options import check_export
from radapt_jax.utils import distributed, trees

log = logging.getLogger(__name__)


class Opened(NamedTuple):
    """A compressed family and what it was made of.

    Args:
      family: the compressed one, before fine-tuning.
      dense: the one before that.
      names: of the domains that were compressed.
      images: opens those of a domain, once.
      is_new: whether it was compressed just now.
    """

    family: Family
    dense: Family
    names: list[str]
    images: Callable[[str], DomainData]
    is_new: bool


def open_compressed(settings: Settings, workdir: Path) -> Opened:
    """Return init_from's family compressed. Once begun in this workdir, it is read from there."""
    dense, how = Family.load(settings.init_from), settings.compression
    names = list(settings.domains) or compressible(dense, how.kind)
    alphas_of(dense, names, kind=how.kind)  # all of them are there, and of that kind
    images = functools.cache(lambda name: _images(settings, dense[name]))
    if not (workdir / "compressed" / "shared").is_dir():
        return Opened(_compressed(settings, dense, names, images), dense, names, images, True)
    begun = Family.load(workdir / "compressed")
    for name in names:
        if begun[name].spec.adapter.kind != how.kind:
            raise ValueError(
                f"the compression in {workdir} was begun without domain {name!r}. Use another "
                "--workdir, or let it join: configs/join.py."
            )
    return Opened(begun, dense, names, images, False)


def _compressed(
    settings: Settings, dense: Family, names: list[str], images: Callable[[str], DomainData]
) -> Family:
    """Return the family compressed as the settings say; where adapters stay dense, a copy."""
    how = settings.compression
    if how.kind not in targets():
        return Family(dense.shared, [dense[name] for name in dense])
    by = None
    if how.fit != SVD:
        by = {}
        for name in names:
            train, batch = images(name).splits["train"], min(BATCH, how.moments)
            count = how.moments // batch * batch
            by[name] = moments(dense, name, train, count=count, batch_size=batch)
    return compress_family(dense, how.kind, how.ranks, domains=names, moments=by, fit=how.fit)


def begin_compressed(settings: Settings, opened: Opened, workdir: Path) -> Family:
    """Save the compressed family, evaluate it before fine-tuning, and return the one to fill."""
    compressed, names = opened.family, opened.names
    compressed.save(workdir / "compressed")
    small = Family(compressed.shared, [compressed[name] for name in compressed])
    for name in names:
        small.add(name, _rounded(settings, compressed[name]))
    rows = settings.evaluate(small)
    distributed.by_main(lambda: write.write(rows, workdir / "compressed"))
    log.info("before fine-tuning:\n%s", results.table(rows))
    basis: Any = compressed.shared.basis
    if basis is not None:
        alphas = alphas_of(opened.dense, names, kind=basis.kind)
        spectra = compress_ranks.spectra(list(alphas.values()))
        distributed.by_main(lambda: plots.plot_spectra(spectra, workdir / "spectra.png"))
        log.info(
            "%s", distributed.by_main(lambda: write_ranks(spectra, dict(basis.ranks), workdir))
        )
    others = [compressed[name] for name in compressed if name not in names]
    begun = Family(compressed.shared, others)
    begun.save(workdir)
    return begun


def compressed_job(settings: Settings, opened: Opened, name: str) -> Callable[[Family | None], Job]:
    """Open a compressed domain's images; return what makes the job that fine-tunes it.

    Statistics of the norms of one that is new are taken anew, in the family: those that it has when
    its adapters are rounded, if they are to be.
    """
    compressed, how, data = opened.family, settings.compression, opened.images(name)
    if opened.is_new and how.statistics:
        batch = min(BATCH, how.statistics)
        count = how.statistics // batch * batch
        member = compressed[name]
        small = Family(compressed.shared, [_rounded(settings, member)])
        seen = renewed(small, name, data.splits["train"], count=count, batch_size=batch)
        compressed.add(name, member.changed(batch_stats=seen.variables["batch_stats"]))
    check_export(settings.options, name, "val" in data.splits)
    spec, variables = compressed[name].spec, trees.to_numpy(compressed.variables(name))
    job = Job(settings.options, data, spec, variables, settings.label)
    if how.distill:
        teacher = teacher_of(opened.dense, name)
        job = dataclasses.replace(job, teacher=teacher, temperature=how.temperature)
    return lambda _: job


def _images(settings: Settings, member: Member) -> DomainData:
    """Open the images that a dense domain was trained on."""
    own = member.data is not None and member.data.dir
    spec, source = open_source(member, None if own else settings.data["dir"])
    settings.check_same_images(spec)
    splits, held_out = load_splits(spec, source, settings.cache, member.record)
    return DomainData(settings.with_decay(member.domain), splits, spec, held_out)


def _rounded(settings: Settings, member: Member) -> Member:
    bits = settings.options.bits
    return member if bits == WHOLE else member.rounded(Rounding(bits))


def teacher_of(dense: Family, name: str) -> Teacher:
    """Return a domain as it is, to learn from: folded if its kind can be."""
    member, variables = dense[name], dense.variables(name)
    spec = member.spec.served()
    if spec.kind.foldable:
        folded = dense.fold(name).weights
        spec, variables = folded.spec, folded.variables
    return Teacher(member.domain, spec, trees.to_numpy(variables))
