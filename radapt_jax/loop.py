"""One run: train every domain of a config, save each, evaluate all."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from radapt_jax import checkpoint, optim, report, settings, trees
from radapt_jax.checkpoint import Shared
from radapt_jax.data.loading import DomainData, load_domain
from radapt_jax.evaluate import Row, evaluate_family
from radapt_jax.family import Family
from radapt_jax.member import Member
from radapt_jax.models.initial import initial_variables
from radapt_jax.training import train_domain

log = logging.getLogger(__name__)


def train_and_evaluate(config: ConfigDict, workdir: str | Path) -> list[Row]:
    """Train the config's domains one after another, then evaluate the family on its test splits.

    Started again with the same workdir, it skips finished domains and goes on with the one it was
    stopped in, from its latest checkpoint.

    Args:
      config: see configs/base.py.
      workdir: where everything goes (see radapt_jax.checkpoint, logs and report).

    Returns:
      One row a domain, the source included.

    Raises:
      ValueError: a config value, a domain's images, or a workdir of another run.
      FileNotFoundError: `init_from` or a domain's images are not there.
      FloatingPointError: the loss is NaN or infinite.
    """
    workdir = Path(workdir).absolute()
    settings.check(config, jax.local_device_count())
    family = _open_family(config, workdir)
    settings.check_same(config, workdir)
    finished = [] if family is None else family.domains
    todo = {}
    for name in settings.names(config.domains):  # all images are sought before any is trained on
        if name in finished:
            log.info("%s: finished before, kept.", name)
        else:
            options = settings.domain_options(config, name)
            todo[name] = load_domain(name, _data_defaults(config), options, config.data.cache)
    settings.remember(config, workdir)
    if family is not None and not (workdir / "shared").is_dir():
        family.save(workdir)
    for data in todo.values():
        family = _train_and_add(config, family, data, workdir)
    assert family is not None, "settings.check wants at least one domain"
    rows = evaluate_family(
        family,
        cache_dir=config.data.cache,
        batch_size=config.train.batch_size,
        dtype=settings.DTYPES[config.backbone.dtype],
    )
    report.write(rows, workdir)
    return rows


def _open_family(config: ConfigDict, workdir: Path) -> Family | None:
    """Return the workdir's family, or a new one on init_from's weights; None: still to be made."""
    if (workdir / "shared").is_dir():
        return Family.load(workdir)
    if not config.init_from:
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
    source = [shared.source] if shared.source in settings.names(config.domains) else []
    if source:
        raise ValueError(
            f"domain {source[0]!r} is the one {config.init_from} was pre-trained on; the family "
            "has it already. To train it again, give it another name: config.options.<name> = "
            f"{{'dataset': {source[0]!r}}}."
        )
    return Family(
        shared, [checkpoint.load_member(config.init_from, shared.source)] if shared.source else []
    )


def _data_defaults(config: ConfigDict) -> dict[str, Any]:
    keys = ("source", "dir", "size", "resize", "squash", "val_fraction")
    return {key: config.data[key] for key in keys}


def _start(config: ConfigDict, family: Family | None, data: DomainData) -> dict[str, Any]:
    """Return a domain's first variables.

    From the backbone: its filters, and its norms with their statistics where the network has
    them; adapters (with their norms) and head are fresh.
    """
    spec = settings.model_spec(config)
    fresh = initial_variables(spec, data.domain.num_classes, config.seed)
    if config.start == "random":
        return fresh
    assert family is not None, "settings.check wants init_from for start='backbone'"
    variables = {**fresh, "params": trees.to_numpy(family.shared.params)}
    if family.shared.source is None:
        return variables
    source = trees.flatten(family[family.shared.source].variables)
    leaves = trees.flatten(variables)
    for path, leaf in source.items():
        is_adapter = "/adapter/" in path
        is_norm = path.startswith("batch_stats/") or optim.label(path) == "norms"
        if is_norm and not is_adapter:
            leaves[path] = np.array(leaf)
    return trees.unflatten(leaves)


def _train_and_add(
    config: ConfigDict, family: Family | None, data: DomainData, workdir: Path
) -> Family:
    """Train one domain, add it to the family (made here if this is the source), save it."""
    spec, name = settings.model_spec(config), data.domain.name
    variables, results = train_domain(config, data, _start(config, family, data), workdir)
    own_weights = config.optim.decay.filters is not None
    if family is None:
        family = Family(
            Shared(variables["params"], spec.backbone, spec.width, name, adapter=spec.adapter)
        )
        checkpoint.save_shared(family.shared, workdir)
        own_weights = False
    if not own_weights:
        del variables["params"]
    member = Member(
        domain=data.domain,
        spec=spec,
        variables=variables,
        method=config.method,
        shared=family.fingerprint,
        data=data.spec,
        images={split: len(part) for split, part in data.splits.items()},
        results=results,
    )
    family.add(name, member)
    checkpoint.save_member(family[name], workdir)
    return family
