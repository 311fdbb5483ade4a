"""A source of images: the splits of one domain, and a reader for the examples of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

SPLITS = ("train", "val", "test")
DIR_FLAGS = "--config.data.dir=DIR (train.py) or --data_dir=DIR (eval.py)"  # for messages


class Example(NamedTuple):
    """One image as it is stored.

    Args:
      where: it is, for messages.
      label: from 0; -1 if unknown, as for a challenge's test images.
      image: anything that `images.decode` takes.
      image_id: the challenge's number of the image; -1: none.
      name: identifies the image within its split, wherever the images are and however many there
        are; "": `where` does.
    """

    where: str
    label: int
    image: Any
    image_id: int = -1
    name: str = ""


@dataclasses.dataclass(frozen=True)
class Source:
    """The raw images of one domain.

    Args:
      name: of the domain.
      classes: class names in label order.
      splits: functions by split ("train", and "val" and "test" if there are any) that read the
        split's examples, in the same order every time.
      key: changes whenever the images do; names the cache of decoded images.
    """

    name: str
    classes: tuple[str, ...]
    splits: Mapping[str, Callable[[], Iterable[Example]]]
    key: str
