"""Runs that compress a family and fine-tune it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from radapt_jax.compress import ranks as compress_ranks
from radapt_jax.compress.family import compress_family
from radapt_jax.compress.which import alphas_of, compressible
from radapt_jax.data.load import DomainData, load_splits
from radapt_jax.evaluation.evaluate import open_source
from radapt_jax.evaluation.statistics import BATCH, renewed
from radapt_jax.experiment.settings import Settings
from radapt_jax.family.family import Family
from radapt_jax.report import plots, results, write
from radapt_jax.report.write import write_ranks
from radapt_jax.train.job import Job
from radapt_jax.train.options import check_export
from radapt_jax.utils import distributed, trees

log = logging.getLogger(__name__)


class Opened(NamedTuple):
    """A compressed family, the names of the domains that were, and whether it is new."""

    family: Family
    names: list[str]
    is_new: bool


def open_compressed(settings: Settings, workdir: Path) -> Opened:
    """Return init_from's family compressed. Once begun in this workdir, it is read from there."""
    dense = Family.load(settings.init_from)
    names = list(settings.domains) or compressible(dense, settings.compression.kind)
    if not (workdir / "compressed" / "shared").is_dir():
        how = settings.compression
        compressed = compress_family(dense, how.kind, how.ranks, domains=names)
        return Opened(compressed, names, is_new=True)
    begun = Family.load(workdir / "compressed")
    for name in names:
        if begun[name].spec.adapter.kind != settings.compression.kind:
            raise ValueError(
                f"the compression in {workdir} was begun without domain {name!r}. Use another "
                "--workdir, or let it join: configs/join.py."
            )
    return Opened(begun, names, is_new=False)


def begin_compressed(settings: Settings, opened: Opened, workdir: Path) -> Family:
    """Save the compressed family, evaluate it before fine-tuning, and return the one to fill."""
    compressed, names, _ = opened
    compressed.save(workdir / "compressed")
    rows = settings.evaluate(compressed)
    distributed.by_main(lambda: write.write(rows, workdir / "compressed"))
    log.info("before fine-tuning:\n%s", results.table(rows))
    basis: Any = compressed.shared.basis
    if basis is not None:
        alphas = alphas_of(Family.load(settings.init_from), names, kind=basis.kind)
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

    Statistics of the norms of one that is new are taken anew, in the family.
    """
    compressed, count = opened.family, settings.compression.statistics
    member = compressed[name]
    own = member.data is not None and member.data.dir
    spec, source = open_source(member, None if own else settings.data["dir"])
    settings.check_same_images(spec)
    splits, held_out = load_splits(spec, source, settings.cache, member.record)
    if opened.is_new and count:
        batch = min(BATCH, count)
        whole = count // batch * batch
        train = splits["train"]
        compressed.add(name, renewed(compressed, name, train, count=whole, batch_size=batch))
    domain = settings.with_decay(member.domain)
    data = DomainData(domain, splits, spec, held_out)
    check_export(settings.options, name, "val" in splits)
    variables = trees.to_numpy(compressed.variables(name))
    return lambda _: Job(settings.options, data, member.spec, variables, settings.label)
