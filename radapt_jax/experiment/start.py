"""Where the training of a domain starts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from radapt_jax.adapters.base import is_adapters
from radapt_jax.adapters.registry import KINDS
from radapt_jax.compress.family import join
from radapt_jax.data.load import DomainData, load_domain
from radapt_jax.experiment.config import backbone, data_defaults, domain_options, model_spec
from radapt_jax.family import checkpoint
from radapt_jax.family.family import Family
from radapt_jax.family.member import Member
from radapt_jax.models.init import initial_variables
from radapt_jax.train.job import Job
from radapt_jax.utils import checks, trees

log = logging.getLogger(__name__)


def open_family(config: ConfigDict, workdir: Path) -> Family | None:
    """Return the workdir's family, or a new one on init_from's weights; None: still to be made."""
    if (workdir / "shared").is_dir():
        return Family.load(workdir)
    if not config.init_from or config.compress.kind:
        return None
    shared = checkpoint.load_shared(config.init_from)
    if shared.backbone != (wanted := backbone(config)):
        raise ValueError(
            f"{config.init_from} holds {shared.backbone}; the config asks for {wanted}. Set "
            f"--config.backbone.name and --config.backbone.width to what is there."
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
    source = [shared.source] if shared.source in checks.names(config.domains) else []
    if source:
        raise ValueError(
            f"domain {source[0]!r} is the one {config.init_from} was pre-trained on; the family "
            "has it already. To train it again, give it another name: config.options.<name> = "
            f"{{'dataset': {source[0]!r}}}."
        )
    if _joins(config):
        if shared.basis is None:
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


def is_finished(config: ConfigDict, family: Family | None, name: str) -> bool:
    """Tell whether the workdir's family has this domain already, and as the kind it is to be."""
    if family is None or name not in family:
        return False
    kind = config.compress.kind or config.adapter.kind
    known = family[name].spec.adapter.kind == kind
    return known or not (config.compress.kind or _joins(config))


def _joins(config: ConfigDict) -> bool:
    """Tell whether domains join a family that shares variables of adapters."""
    return KINDS[config.adapter.kind].shares()


def open_job(config: ConfigDict, name: str) -> Callable[[Family | None], Job]:
    """Open a domain's images; return what makes a job of it once the family is there."""
    dense = None
    if _joins(config) and config.compress.dense:
        dense = checkpoint.load_member(config.compress.dense, name)
    data = load_domain(
        name,
        data_defaults(config),
        domain_options(config, name),
        config.data.cache,
        dense.record if dense else None,
        multiple_of=backbone(config).multiple_of,
    )
    check_export(config, data)
    return lambda family: start_job(config, family, data, dense)


def check_export(config: ConfigDict, data: DomainData) -> None:
    if config.export == "best" and "val" not in data.splits:
        raise ValueError(
            f"{data.domain.name}: config.export is 'best', and there are no validation images to "
            "tell which is. Set config.export to 'latest', or leave images for validation: "
            "config.data.train_on='train' and config.data.val_fraction above 0."
        )


def start_job(
    config: ConfigDict, family: Family | None, data: DomainData, dense: Member | None
) -> Job:
    """Return where a domain's training starts.

    From the backbone: its filters (and shared β), and the norms of its source domain with their
    statistics, where the family has that domain; adapters (with their norms) and head are fresh. A
    domain that joins a compressed family starts from the projection of its dense adapters, if they
    are given.
    """
    joined = family is not None and _joins(config)
    spec = model_spec(config, family.shared.basis if family is not None and joined else None)
    fresh = initial_variables(spec, data.domain.num_classes, config.seed)
    if config.start == "random":
        return Job(config, data, spec, fresh)
    assert family is not None, "settings.check wants init_from for start='backbone'"
    params = trees.to_numpy(family.shared.params_for(spec))
    if dense is not None:
        member, error = join(family, dense)
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
        if not is_adapters(path) and not path.startswith("adapters/head/"):
            leaves[path] = np.array(leaf)
    return Job(config, data, spec, trees.unflatten(leaves))
