"""The images of a domain in memory, as a user would have them."""

import dataclasses

import numpy as np

import radapt_jax as rj
from radapt_jax.data.load import load_domain

SPLITS = ("train", "val", "test")


@dataclasses.dataclass(frozen=True)
class Images:
    """Images and labels by split, and what fit is told of the domain."""

    splits: dict[str, tuple[list[np.ndarray], np.ndarray]]
    facts: rj.DomainOptions


def read(study, name, cache):
    """Return the images of one of a study's domains; decoded ones are kept in `cache`."""
    options = study.domains[name]
    whole = options.get("crop") == "centre"
    shape = {"size": study.size, "resize": study.size if whole else round(study.size * 9 / 8)}
    data = load_domain(name, {}, {**options, **shape}, cache)
    known = {key: options[key] for key in ("crop", "flip", "adapter_decay") if key in options}
    facts = rj.DomainOptions(classes=data.domain.classes, **shape, **known)
    splits = {split: data.splits[split] for split in SPLITS}
    return Images(
        {
            split: ([it.image(at) for at in range(len(it))], it.targets)
            for split, it in splits.items()
        },
        facts,
    )
