"""A family's answers for the Visual Decathlon's test images: written to a file, or scored."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from radapt_jax.data.decathlon.facts import DECATHLON, decathlon_name
from radapt_jax.data.load import load_test
from radapt_jax.decathlon.labels import accuracy, read_labels
from radapt_jax.evaluation.evaluate import predict_domain
from radapt_jax.evaluation.result import Result, challenge_name, row_of, shown_split
from radapt_jax.evaluation.sources import open_source
from radapt_jax.family.family import Family
from radapt_jax.utils import files
from radapt_jax.utils.files import check_file_place

log = logging.getLogger(__name__)


class Answer(NamedTuple):
    """The answer for one image: its number, and the category that the network predicts."""

    image_id: int
    category_id: int


def challenge_domains(family: Family, named: Collection[str] = ()) -> dict[str, str]:
    """Return the domains that have the challenge's images: the family's names by the challenge's.

    If two domains have the same images, the one in `named` counts, else the first one.
    """
    found: dict[str, str] = {}
    for name in sorted(family, key=lambda it: it not in named):
        if known := challenge_name(family[name]):
            found.setdefault(known, name)
    return {known: found[known] for known in DECATHLON if known in found}


def answers(family: Family, domains: Iterable[str] = (), **evaluation: Any) -> dict[str, list]:
    """Return the answers for all test images of decathlon domains, by the challenge's names.

    Images that cannot be read get the first category.

    Args:
      family: with the domains.
      domains: the family's or the challenge's names; default: all ten.
      evaluation: `cache_dir`, and optionally `data_dir`, `batch_size`, `dtype` and `crops`, as in
        `evaluate.evaluate_family`.

    Raises:
      ValueError: the family lacks a domain, or its test images have no numbers.
      FileNotFoundError: the images are not there.
    """
    domains = list(domains)
    there = challenge_domains(family, domains)
    called = {name: known for name in family if (known := challenge_name(family[name]))}
    wanted = [called.get(name) or decathlon_name(name) or name for name in domains]
    if twice := sorted({it for it in wanted if wanted.count(it) > 1}):
        raise ValueError(f"found several domains of {', '.join(twice)}; expected one: --domains.")
    wanted = wanted or list(DECATHLON)
    if missing := [name for name in wanted if name not in there]:
        raise ValueError(
            f"the family has no domain {', '.join(missing)}, only {', '.join(there) or 'none'} of "
            "the decathlon, and a complete submission needs all ten. Train them, or name those to "
            "answer: --domains."
        )
    return {name: _answers(family, name, there[name], **evaluation) for name in wanted}


def _answers(
    family: Family,
    known: str,
    name: str,
    *,
    cache_dir: str | Path,
    data_dir: str | None = None,
    **evaluation: Any,
) -> list[Answer]:
    spec, source = open_source(family[name], data_dir)
    images = load_test(spec, source, cache_dir)
    numbers = images.ids[images.index]
    if (numbers < 0).any():
        raise ValueError(
            f"domain {name!r}: its test images have no numbers, but a submission needs them. "
            "Prepare the domain from the official archives (python -m radapt_jax decathlon "
            "prepare), and train with --config.data.source=decathlon."
        )
    base = DECATHLON[known].category_base
    judged = predict_domain(family, name, images, **evaluation)
    found = [
        Answer(int(number), base + int(label))
        for number, label in zip(numbers, judged.predicted, strict=True)
    ]
    if images.unread:
        log.warning("%s: %d test images cannot be read.", name, len(images.unread))
    return sorted([*found, *(Answer(number, base) for number in images.unread)])


def write_submission(found: Mapping[str, Sequence[Answer]], path: str | Path) -> None:
    """Write the flat JSON list of {image_id, category_id} of all domains, sorted by image_id.

    Raises:
      ValueError: two images have the same number.
      OSError: nothing can be written there; a file that is there stays unchanged.
    """
    path = Path(path)
    check_file_place(path)
    if len(found) < len(DECATHLON):
        log.warning("a submission of only %d domains; a complete one has ten.", len(found))
    flat = sorted(answer for part in found.values() for answer in part)
    numbers = [answer.image_id for answer in flat]
    if len(set(numbers)) < len(numbers):
        raise ValueError(
            "two test images have one number, so the data are not the challenge's. Prepare the "
            "domains from the official archives: python -m radapt_jax decathlon prepare."
        )
    files.write_atomically(path, json.dumps([answer._asdict() for answer in flat]) + "\n")


def score_answers(
    family: Family,
    found: Mapping[str, Sequence[Answer]],
    labels: str | Path,
    crops: int = 1,
    domains: Iterable[str] = (),
) -> list[Result]:
    """Return a result for each domain, its answers scored by `<domain>_test.json`.

    Args:
      family: that gave the answers.
      found: the answers by the challenge's names, from `answers`.
      labels: folder or zip file with these JSON files.
      crops: views of each image that were averaged, for the table.
      domains: as they were named to `answers`.

    Raises:
      FileNotFoundError: there are no labels for a domain.
      KeyError: the family has no such domain.
      ValueError: labels are not in the COCO format, or do not match the answers.
    """
    there = challenge_domains(family, list(domains))
    rows = []
    for known, part in found.items():
        truth = read_labels(labels, known)
        top1 = accuracy(known, part, truth)
        rows.append(row_of(family, there[known], shown_split("test", crops), len(truth), top1))
    return rows
