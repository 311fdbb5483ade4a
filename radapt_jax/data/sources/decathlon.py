"""Opens prepared domains of the Visual Decathlon."""

from __future__ import annotations

from pathlib import Path

from radapt_jax.data.decathlon.facts import DECATHLON, decathlon_name
from radapt_jax.data.sources.source import DIR_FLAGS, Source
from radapt_jax.data.sources.tfds import open_tfds

# As prepared by `data.decathlon.prepare`, and by tensorflow-datasets' own builder.
DECATHLON_DATASETS = ("decathlon", "visual_domain_decathlon")


def open_decathlon(name: str, data_dir: str | Path) -> Source:
    """Return the images of a prepared domain of the Visual Decathlon.

    They are in `decathlon/<domain>` as `prepare_decathlon` writes it, or else in
    `visual_domain_decathlon/<domain>` of tensorflow-datasets in array_record. The latter has no
    image ids (they are -1), and its label is the position of the category in the annotation file's
    list: the same as category id - `category_base` if that list is complete and sorted by id.

    Args:
      name: of the domain; `vgg_flowers` and `vgg-flowers` are the same.
      data_dir: where it was prepared.

    Raises:
      FileNotFoundError: neither is there.
      ValueError: `name` is no domain of the challenge, or the folder holds another domain.
    """
    domain = decathlon_name(name)
    if domain is None:
        raise ValueError(f"found domain {name!r}; expected one of {list(DECATHLON)}.")
    for dataset in DECATHLON_DATASETS:
        try:
            source = open_tfds(name, data_dir, dataset=f"{dataset}/{domain}")
        except FileNotFoundError:
            continue
        if len(source.classes) != DECATHLON[domain].num_classes:
            raise ValueError(
                f"{Path(data_dir) / dataset / domain} has {len(source.classes)} classes; expected "
                f"{DECATHLON[domain].num_classes}. Prepare it again."
            )
        return source
    raise FileNotFoundError(
        f"domain {name!r}: found neither of {', '.join(DECATHLON_DATASETS)} with {domain!r} in "
        f"{data_dir}. Say where it is: {DIR_FLAGS}; or prepare it from the official archives: "
        f"python -m radapt_jax decathlon prepare ARCHIVES {data_dir} --domains {domain}"
    )
