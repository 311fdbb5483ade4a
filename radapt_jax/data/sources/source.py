"""Where images come from: a source lists the splits of one domain and reads their examples."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

SPLITS = ("train", "val", "test")
DIR_FLAGS = "--config.data.dir=DIR (train.py) or --data_dir=DIR (eval.py)"  # for messages


class Example(NamedTuple):
    """One image as it lies on disk: where (for messages), its label, and what `decode` takes.

    The label is -1 where it is not known, as of a challenge's test images, and `image_id` is the
    number under which a challenge knows the image (-1: none). `name` tells it from the others of
    its split wherever the images lie, and however many they are ("": `where` does).
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
      splits: "train", and "val" and "test" where there are any, to a function that reads the
        split's examples, in the same order every time.
      key: changes whenever the images do; names the decoded cache.
    """

    name: str
    classes: tuple[str, ...]
    splits: Mapping[str, Callable[[], Iterable[Example]]]
    key: str
