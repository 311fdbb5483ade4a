"""One run: train every domain of a config, save each, evaluate all."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from radapt_jax import (
    checkpoint,
    compress,
    compression,
    files,
    hosts,
    methods,
    optim,
    report,
    settings,
    trees,
)
from radapt_jax.checkpoint import Shared
from radapt_jax.data.loading import DomainData, load_domain, load_splits
from radapt_jax.evaluate import Row, evaluate_family, open_source
from radapt_jax.failures import Failures
from radapt_jax.family import Family
from radapt_jax.member import Member
from radapt_jax.models.initial import initial_variables
from radapt_jax.plan import Job
from radapt_jax.stopping import Stopping
from radapt_jax.training import train_domains
from radapt_jax.workdir import check_shared, held
from radapt_jax.writable import check_writable

log = logging.getLogger(__name__)


def train_and_evaluate(config: ConfigDict, workdir: str | Path) -> list[Row]:
    """Train the config's domains one after another, then evaluate the family on its test splits.

    Started again with the same workdir, it skips finished domains and goes on with the one it was
    stopped in, from its latest checkpoint. Of several domains, one that fails does not stop the
    others: the family is evaluated without it, and the error comes last.

    Several processes (see radapt_jax.hosts) share each batch; all are to call this, and get the
    same rows. Process 0 writes.

    Args:
      config: see configs/base.py.
      workdir: where everything goes (see radapt_jax.checkpoint, logs and report); all processes
        see it.

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
    settings.check(config, len(hosts.devices()), hosts.place()[1])
    with Stopping() as stopping, hosts.alone(), contextlib.ExitStack() as stack:
        hosts.check_same(settings.without_places(config), "config")
        hosts.by_main(lambda: _begin(workdir, stack))
        with hosts.agreed():
            check_shared(workdir)
        rows = _run(config, workdir, stopping)
        hosts.by_main(stack.close)
        return rows


def _begin(workdir: Path, stack: contextlib.ExitStack) -> None:
    """Lock the workdir, and put right what killed saves left there."""
    check_writable(workdir, "Name a folder for the run: --workdir=DIR.")
    stack.enter_context(held(workdir))
    for place in (workdir, workdir / "compressed"):
        checkpoint.clean(place)


def _run(config: ConfigDict, workdir: Path, stopping: Stopping) -> list[Row]:
    settings.check_same(config, workdir)
    family = _open_family(config, workdir)
    compressed, names = _compressed(config, workdir) if config.compress.kind else (None, ())
    wanted = names or settings.names(config.domains)
    founds = family is None and compressed is None  # the first domain's filters are to be shared
    failures = Failures(wanted, essential=wanted[0] if founds else None)
    jobs: dict[str, Callable[[Family | None], Job]] = {}
    for name in wanted:  # all images are sought before training
        if _is_finished(config, family, name):
            log.info("%s: finished before, kept.", name)
            continue
        with failures.of(name), hosts.agreed():
            job = _compressed_job(config, compressed, name) if compressed else _job(config, name)
            jobs[name] = job
    hosts.check_same(list(jobs), "domains to train")
    if failures.all:
        failures.tell([])
    hosts.by_main(lambda: settings.remember(config, workdir))
    if compressed is not None:
        if family is None:
            family = _begin_compressed(config, compressed, names, workdir)
    elif family is not None and not (workdir / "shared").is_dir():
        family.save(workdir)
    waiting = list(jobs)
    for start in range(0, len(waiting), config.train.together):
        ready = []
        for name in waiting[start : start + config.train.together]:
            with failures.of(name), hosts.agreed():
                ready.append(jobs[name](family))
        family = _train(family, ready, workdir, failures, stopping)
    assert family is not None, "a run has ended if the domain failed that founds the family"
    rows = _evaluate(config, family)
    hosts.by_main(lambda: report.write(rows, workdir))
    failures.tell(rows)
    return rows


def _open_family(config: ConfigDict, workdir: Path) -> Family | None:
    """Return the workdir's family, or a new one on init_from's weights; None: still to be made."""
    if (workdir / "shared").is_dir():
        return Family.load(workdir)
    if not config.init_from or config.compress.kind:
        return None
    shared = checkpoint.load_shared(config.init_from)
    found, wanted = (
        (shared.backbone, shared.width),
        (config.backbone.name, config.backbone.width),
    )
    if found != wanted:
        raise ValueError(
            f"{config.init_from} holds {found[0]} of width {found[1]}, the config asks for "
            f"{wanted[0]} of width {wanted[1]}. Set --config.backbone.width={found[1]}."
        )
    if config.source_adapter is not None and shared.adapter != config.source_adapter:
        raise ValueError(
            f"method {config.method!r} wants shared weights pre-trained with adapter "
            f"{config.source_adapter!r}; {config.init_from} was with {shared.adapter!r}."
        )
    if shared.adapter not in ("none", config.adapter.kind):
        log.warning(
            "%s was pre-trained with %s adapters; method %r leaves them out, and its features and "
            "norms were made for them.",
            config.init_from,
            shared.adapter,
            config.method,
        )
    source = [shared.source] if shared.source in settings.names(config.domains) else []
    if source:
        raise ValueError(
            f"domain {source[0]!r} is the one {config.init_from} was pre-trained on; the family "
            "has it already. To train it again, give it another name: config.options.<name> = "
            f"{{'dataset': {source[0]!r}}}."
        )
    if config.adapter.kind == "joint":
        if not shared.ranks:
            raise ValueError(
                f"{config.init_from} shares no β that a domain could join; compress it jointly "
                "first: configs/compress.py."
            )
        return Family.load(config.init_from)
    there = checkpoint.list_members(config.init_from)
    return Family(
        shared,
        [checkpoint.load_member(config.init_from, name) for name in there if name == shared.source],
    )


def _is_finished(config: ConfigDict, family: Family | None, name: str) -> bool:
    """Tell whether the workdir's family has this domain already, and as the kind it is to be."""
    if family is None or name not in family:
        return False
    kind = config.compress.kind or config.adapter.kind
    return (config.adapter.kind != "joint" and not config.compress.kind) or (
        family[name].spec.adapter == kind
    )


def _job(config: ConfigDict, name: str) -> Callable[[Family | None], Job]:
    """Open a domain's images; return what makes a job of it once the family is there."""
    dense = None
    if config.adapter.kind == "joint" and config.compress.dense:
        dense = checkpoint.load_member(config.compress.dense, name)
    data = load_domain(
        name,
        settings.data_defaults(config),
        settings.domain_options(config, name),
        config.data.cache,
        dense.record if dense else None,
    )
    _check_export(config, data)
    return lambda family: _start(config, family, data, dense)


def _check_export(config: ConfigDict, data: DomainData) -> None:
    if config.export == "best" and "val" not in data.splits:
        raise ValueError(
            f"{data.domain.name}: config.export is 'best', and there are no validation images to "
            "tell which is. Set config.export to 'latest', or leave images for validation: "
            "config.data.train_on='train' and config.data.val_fraction above 0."
        )


def _start(
    config: ConfigDict, family: Family | None, data: DomainData, dense: Member | None
) -> Job:
    """Return where a domain's training starts.

    From the backbone: its filters (and shared β), and the norms of its source domain with their
    statistics, where the family has that domain; adapters (with their norms) and head are fresh. A
    domain that joins a compressed family starts from the projection of its dense adapters, if they
    are given.
    """
    joins = config.adapter.kind == "joint"
    spec = settings.model_spec(
        config, family.shared.ranks if joins and family is not None else None
    )
    fresh = initial_variables(spec, data.domain.num_classes, config.seed)
    if config.start == "random":
        return Job(config, data, spec, fresh)
    assert family is not None, "settings.check wants init_from for start='backbone'"
    params = trees.to_numpy(family.shared_for(spec))
    if dense is not None:
        member, error = compression.join(family, dense)
        log.info("%s: joins with a relative error of %.3f of its α.", data.domain.name, error)
        results = {"projection_error": error}
        if "val" in dense.results:
            results["dense_val"] = dense.results["val"]
        return Job(config, data, spec, {**member.variables, "params": params}, results)
    leaves = trees.flatten({**fresh, "params": params})
    source = family.shared.source
    if source is None or source not in family:
        log.warning(
            "%s: starts from identity norms, and will be less accurate than from the backbone's: "
            "the family has no source domain%s.",
            data.domain.name,
            f" {source!r}, on which it was pre-trained; save it along"
            if source
            else " (radapt_jax.family_of_original makes one of weights of the original code)",
        )
        return Job(config, data, spec, trees.unflatten(leaves))
    for path, leaf in trees.flatten(family[source].variables).items():
        is_norm = path.startswith("batch_stats/") or optim.label(path) == "norms"
        if is_norm and "/adapter/" not in path:
            leaves[path] = np.array(leaf)
    return Job(config, data, spec, trees.unflatten(leaves))


def _compressed(config: ConfigDict, workdir: Path) -> tuple[Family, list[str]]:
    """Return init_from's family compressed, and the names of the domains that were.

    Once begun in this workdir, it is read from there.
    """
    dense = Family.load(config.init_from)
    names = list(settings.names(config.domains)) or compression.compressible(dense)
    if not (workdir / "compressed" / "shared").is_dir():
        rule = settings.rank_rule(config)
        kind = config.compress.kind
        return compression.compress_family(dense, kind, rule, domains=names), names
    begun = Family.load(workdir / "compressed")
    for name in names:
        if begun[name].spec.adapter != config.compress.kind:
            raise ValueError(
                f"the compression in {workdir} was begun without domain {name!r}. Use another "
                "--workdir, or let it join: configs/join.py."
            )
    return begun, names


def _begin_compressed(
    config: ConfigDict, compressed: Family, names: Sequence[str], workdir: Path
) -> Family:
    """Save the compressed family, evaluate it before fine-tuning, and return the one to fill."""
    compressed.save(workdir / "compressed")
    rows = _evaluate(config, compressed)
    hosts.by_main(lambda: report.write(rows, workdir / "compressed"))
    log.info("before fine-tuning:\n%s", report.table(rows))
    if compressed.shared.ranks:
        alphas = compression.alphas_of(Family.load(config.init_from), names)
        spectra = compress.spectra(list(alphas.values()))
        hosts.by_main(lambda: report.plot_spectra(spectra, workdir / "spectra.png"))
        ranks = compressed.shared.ranks
        log.info("%s", hosts.by_main(lambda: report.write_ranks(spectra, ranks, workdir)))
    others = [compressed[name] for name in compressed if name not in names]
    begun = Family(compressed.shared, others)
    begun.save(workdir)
    return begun


def _compressed_job(
    config: ConfigDict, compressed: Family, name: str
) -> Callable[[Family | None], Job]:
    member = compressed[name]
    own = member.data is not None and member.data.dir
    spec, source = open_source(member, None if own else config.data.dir)
    settings.check_same_images(config, spec)
    splits, held_out = load_splits(spec, source, config.data.cache, member.record)
    domain = settings.with_decay(config, member.domain)
    data = DomainData(domain, splits, spec, held_out)
    _check_export(config, data)
    return lambda _: Job(config, data, member.spec, trees.to_numpy(compressed.variables(name)))


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
            for job, variables, results in train_domains(jobs, workdir, stopping):
                family = _add(family, job, variables, results, workdir)
                del left[job.name]
        except Exception as error:
            log.warning("%s: %s They go on one by one.", ", ".join(left), error)
    for job in left.values():
        with failures.of(job.name):
            for _, variables, results in train_domains([job], workdir, stopping):
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
    config, spec, name = job.config, job.spec, job.name
    if family is None:
        family = Family(
            Shared(variables["params"], spec.backbone, spec.width, name, adapter=spec.adapter)
        )
    if config.optim.decay.filters is None or name == family.shared.source:
        del variables["params"]
    results = {**job.results, **results}
    if "dense_val" in results and "val" in results:
        lost = results["dense_val"] - results["val"]
        log.info("%s: %.2f points below its own dense α on validation images.", name, lost)
    member = Member(
        domain=job.data.domain,
        spec=spec,
        variables=variables,
        method=methods.label(config),
        data=job.data.spec,
        images={split: len(part) for split, part in job.data.splits.items()},
        results=results,
        held_out=job.data.held_out,
    )
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


def _evaluate(config: ConfigDict, family: Family) -> list[Row]:
    return evaluate_family(
        family,
        cache_dir=config.data.cache,
        batch_size=config.train.batch_size,
        dtype=settings.DTYPES[config.backbone.dtype],
    )
