"""Scores a submission by the Visual Decathlon's test labels."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from radapt_jax.data.decathlon.facts import DECATHLON

Pairs = Sequence[tuple[int, int]]  # image number, category
BLOCK = 10_000_000  # each domain has a block of this many image and category numbers


def score_submission(path: str | Path, labels: str | Path) -> dict[str, float]:
    """Return top-1 in percent of the domains that a submission answers, in the decathlon's order.

    Args:
      path: of a flat JSON list of {"image_id", "category_id"}.
      labels: folder or zip file with `<domain>_test.json` for each domain.

    Raises:
      FileNotFoundError: there is no submission, or there are no labels for a domain in it.
      ValueError: a file cannot be read, or a domain does not have one answer for each test image.
    """
    given = _by_domain(read_submission(path), path)
    return {name: accuracy(name, given[name], read_labels(labels, name)) for name in given}


def accuracy(domain: str, given: Pairs, truth: Mapping[int, int]) -> float:
    """Return how many answers are right, in percent.

    Args:
      domain: the challenge's name of it.
      given: image number and category of each answer, in any order.
      truth: the right categories by image number.

    Raises:
      KeyError: the challenge has no such domain.
      ValueError: an image has no answer or several, a number is not that of a test image, or a
        category is not the domain's.
    """
    times = Counter(number for number, _ in given)
    wrong = {
        "not answered": truth.keys() - times.keys(),
        "answered more than once": {number for number, count in times.items() if count > 1},
        "not of the domain's test images": times.keys() - truth.keys(),
    }
    if any(wrong.values()):
        found = "; ".join(
            f"{len(them):,} {what}, such as {min(them)}" for what, them in wrong.items() if them
        )
        raise ValueError(
            f"domain {domain!r}: the labels are of {len(truth):,} images, the answers of "
            f"{len(given):,}: {found}. Expected one answer for each test image; answer a domain "
            "completely or leave it out."
        )
    _check_categories(domain, given)
    return 100 * sum(truth[number] == category for number, category in given) / len(truth)


def _check_categories(domain: str, given: Pairs) -> None:
    facts = DECATHLON[domain]
    known = range(facts.category_base, facts.category_base + facts.num_classes)
    if odd := [(number, category) for number, category in given if category not in known]:
        raise ValueError(
            f"domain {domain!r}: {len(odd):,} answers have a category that it does not have, such "
            f"as {odd[0][1]} of image {odd[0][0]}; expected {known[0]} to {known[-1]}. A category "
            f"is {known[0]} plus the label, which counts from 0."
        )


def read_submission(path: str | Path) -> Pairs:
    """Return image number and category of each answer in a file, in the file's order.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is not a flat JSON list of {"image_id", "category_id"}.
    """
    expected = 'expected a flat list of {"image_id": 20250001, "category_id": 20000074}'
    try:
        listed = json.loads(Path(path).expanduser().read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}; {expected}.") from error
    if not isinstance(listed, list) or not listed:
        what = "an empty list" if listed == [] else f"a {type(listed).__name__}"
        raise ValueError(f"{path} holds {what}; {expected}.")
    for place, entry in enumerate(listed):
        if not isinstance(entry, dict) or not all(
            type(entry.get(key)) is int for key in ("image_id", "category_id")
        ):
            raise ValueError(f"{path}: entry {place} is {entry!r:.100}; {expected}.")
    return [(entry["image_id"], entry["category_id"]) for entry in listed]


def _by_domain(given: Pairs, path: str | Path) -> dict[str, list[tuple[int, int]]]:
    """Return a submission's answers by domain; the block of an image's number tells which."""
    blocks = {facts.category_base // BLOCK: name for name, facts in DECATHLON.items()}
    if nowhere := [number for number, _ in given if number // BLOCK not in blocks]:
        raise ValueError(
            f"{path}: {len(nowhere):,} image numbers are of no domain, such as {min(nowhere)}; "
            f"expected those of the challenge, from {min(blocks) * BLOCK:,} on. Write the image_id "
            "that the archives' annotations give a test image."
        )
    found: dict[str, list[tuple[int, int]]] = {name: [] for name in DECATHLON}
    for number, category in given:
        found[blocks[number // BLOCK]].append((number, category))
    return {name: part for name, part in found.items() if part}


def read_labels(labels: str | Path, domain: str) -> dict[int, int]:
    """Return the categories of a domain's test images, by image number.

    Args:
      labels: folder or zip file with COCO-style `<domain>_test.json`; a zip file is read in place.
      domain: the challenge's name of it.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it cannot be read, or is not in the COCO format.
    """
    place, name = Path(labels).expanduser(), f"{domain}_test.json"
    content = _read_member(place, name) if zipfile.is_zipfile(place) else _read(place, name)
    try:
        listed: Any = json.loads(content)["annotations"]
        found = {int(it["image_id"]): int(it["category_id"]) for it in listed}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{place / name} is not in the COCO format: {error!r}. Expected a list 'annotations' "
            "of image_id and category_id."
        ) from error
    if len(found) < len(listed) or not found:
        raise ValueError(
            f"{place / name} holds {len(listed):,} annotations of {len(found):,} images; expected "
            "one of each. Get the file again."
        )
    return found


def _read(place: Path, name: str) -> bytes:
    if not (place / name).is_file():
        raise FileNotFoundError(
            f"found no {place / name}; expected the COCO-style annotations of a domain's test "
            "images. Say in which folder or zip file they are: --labels PATH."
        )
    return (place / name).read_bytes()


def _read_member(place: Path, name: str) -> bytes:
    try:
        with zipfile.ZipFile(place) as archive:
            members = [it for it in archive.namelist() if PurePosixPath(it).name == name]
            if len(members) != 1:
                raise FileNotFoundError(
                    f"found {len(members)} files {name} in {place}; expected one, the COCO-style "
                    "annotations of a domain's test images."
                )
            return archive.read(members[0])
    except (zipfile.BadZipFile, zlib.error, RuntimeError) as error:
        raise ValueError(f"{place} cannot be read: {error}. Get the file again.") from error
