"""Runs that compress a family and fine-tune it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from radapt_jax.compress import ranks as compress_ranks
from radapt_jax.compress.family import alphas_of, compress_family, compressible
from radapt_jax.data.load import DomainData, load_splits
from radapt_jax.evaluation.evaluate import open_source
from radapt_jax.experiment.config import check_same_images, evaluate_run, rank_rule, with_decay
from radapt_jax.experiment.start import check_export
from radapt_jax.family.family import Family
from radapt_jax.report import plots, results, write
from radapt_jax.report.write import write_ranks
from radapt_jax.train.job import Job
from radapt_jax.utils import checks, distributed, trees

log = logging.getLogger(__name__)


def open_compressed(config: ConfigDict, workdir: Path) -> tuple[Family, list[str]]:
    """Return init_from's family compressed, and the names of the domains that were.

    Once begun in this workdir, it is read from there.
    """
    dense = Family.load(config.init_from)
    names = list(checks.names(config.domains)) or compressible(dense)
    if not (workdir / "compressed" / "shared").is_dir():
        rule = rank_rule(config)
        kind = config.compress.kind
        return compress_family(dense, kind, rule, domains=names), names
    begun = Family.load(workdir / "compressed")
    for name in names:
        if begun[name].spec.adapter.kind != config.compress.kind:
            raise ValueError(
                f"the compression in {workdir} was begun without domain {name!r}. Use another "
                "--workdir, or let it join: configs/join.py."
            )
    return begun, names


def begin_compressed(
    config: ConfigDict, compressed: Family, names: Sequence[str], workdir: Path
) -> Family:
    """Save the compressed family, evaluate it before fine-tuning, and return the one to fill."""
    compressed.save(workdir / "compressed")
    rows = evaluate_run(config, compressed)
    distributed.by_main(lambda: write.write(rows, workdir / "compressed"))
    log.info("before fine-tuning:\n%s", results.table(rows))
    basis: Any = compressed.shared.basis
    if basis is not None:
        alphas = alphas_of(Family.load(config.init_from), names)
        spectra = compress_ranks.spectra(list(alphas.values()))
        distributed.by_main(lambda: plots.plot_spectra(spectra, workdir / "spectra.png"))
        log.info("%s", distributed.by_main(lambda: write_ranks(spectra, basis.ranks, workdir)))
    others = [compressed[name] for name in compressed if name not in names]
    begun = Family(compressed.shared, others)
    begun.save(workdir)
    return begun


def compressed_job(
    config: ConfigDict, compressed: Family, name: str
) -> Callable[[Family | None], Job]:
    member = compressed[name]
    own = member.data is not None and member.data.dir
    spec, source = open_source(member, None if own else config.data.dir)
    check_same_images(config, spec)
    splits, held_out = load_splits(spec, source, config.data.cache, member.record)
    domain = with_decay(config, member.domain)
    data = DomainData(domain, splits, spec, held_out)
    check_export(config, data)
    return lambda _: Job(config, data, member.spec, trees.to_numpy(compressed.variables(name)))
