"""Images and labels that a program holds in memory; no card can say where these are."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from radapt_jax.data.images import each
from radapt_jax.data.sources.source import Example, Source


def open_arrays(
    name: str, splits: Mapping[str, tuple[Any, Any]], classes: Sequence[str] | None = None
) -> Source:
    """Return the source of a domain in memory.

    Args:
      name: of the domain.
      splits: images and labels of each split, the first of which tells the classes. Images are what
        `data.images.preprocess` takes, labels whole numbers or class names, (n,).
      classes: names in label order. Default: the names there are, sorted; where labels are numbers
        "0", "1", ... to the largest.

    Raises:
      ValueError: there are no images, or not as many as labels; or labels that are of another kind,
        or of none of the classes.
    """
    readers: dict[str, Callable[[], Iterable[Example]]] = {}
    for split, (images, labels) in splits.items():
        what = f"domain {name!r}: split {split!r}: "
        found = labels if hasattr(labels, "__array__") else list(labels)
        targets, classes = _numbered(np.asarray(found), classes, what)
        listed = list(each(images))
        if len(listed) != len(targets) or not listed:
            raise ValueError(
                f"{what}found {len(listed):,} images and {len(targets):,} labels; expected one "
                "label for each image, and at least one image."
            )
        readers[split] = functools.partial(_read, f"{name} {split}", listed, targets.tolist())
    return Source(name, tuple(classes or ()), readers, key="in memory")


def _read(what: str, images: list[Any], labels: list[int]) -> Iterator[Example]:
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        yield Example(f"{what} {index}", label, image, name=str(index))


def _numbered(
    labels: np.ndarray, classes: Sequence[str] | None, what: str
) -> tuple[np.ndarray, Sequence[str]]:
    """Return labels as numbers, int64 (n,), and the classes they are of."""
    named = labels.dtype.kind == "U" or all(isinstance(it, str) for it in labels.reshape(-1))
    if labels.ndim != 1 or not (named or labels.dtype.kind in "iu"):
        raise ValueError(
            f"{what}found labels {labels.dtype} {labels.shape}; expected whole numbers or class "
            "names (n,)."
        )
    if not len(labels):
        return np.zeros(0, np.int64), classes or ()
    if named:
        classes = sorted(set(labels.tolist())) if classes is None else classes
        places = {it: place for place, it in enumerate(classes)}
        if unknown := sorted(set(labels.tolist()) - set(places)):
            raise ValueError(
                f"{what}found labels {unknown[:5]}; expected some of {list(classes[:10])} "
                f"({len(classes)} classes)."
            )
        return np.array([places[it] for it in labels.tolist()], np.int64), classes
    lowest, highest = int(labels.min()), int(labels.max())
    if classes is None:
        classes = [str(label) for label in range(highest + 1)]
    if lowest < 0 or highest >= len(classes):
        raise ValueError(
            f"{what}found labels from {lowest} to {highest}; expected 0 to {len(classes) - 1}, as "
            f"there are {len(classes)} classes."
        )
    return labels.astype(np.int64), classes
