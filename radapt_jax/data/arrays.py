"""From images and labels in memory to a domain's facts and splits."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from radapt_jax.data.cache import decode_split
from radapt_jax.data.domain import RGB, Crop, Domain, Interpolation
from radapt_jax.data.holdout import HeldOut, choose_held_out
from radapt_jax.data.load import DomainData, warn_of_empty_classes
from radapt_jax.data.sources.arrays import open_arrays
from radapt_jax.utils.checks import check, number, whole

USUAL = {"size": 64, "resize": 72, "interpolation": "bicubic"}  # where there is no source domain
FRACTION = number("[0, 1)")


@dataclasses.dataclass(frozen=True)
class DomainOptions:
    """The facts of a domain that is trained from arrays; None: as it says.

    Args:
      classes: names in label order; None: see `sources.arrays.open_arrays`.
      size: side of the square that the network sees, in pixels; None: that of the family's source
        domain, or 64.
      resize: shorter side of the decoded image, in pixels; None: as `size`, or 9/8 of the size that
        is given.
      squash, crop, flip, adapter_decay: as in `Domain`.
      mean, std: per channel (RGB), for images in [0, 1]; None: measured on the training images.
      interpolation: as in `Domain`; None: that of the source domain, or "bicubic".
    """

    classes: Sequence[str] | None = None
    size: int | None = None
    resize: int | None = None
    squash: bool = False
    crop: Crop = "random"
    flip: bool = True
    mean: RGB | None = None
    std: RGB | None = None
    adapter_decay: float | None = None
    interpolation: Interpolation | None = None

    def like(self, source: Domain | None) -> DomainOptions:
        """Return these options with the sizes and interpolation of another domain, unless set."""
        like: Any = USUAL if source is None else vars(source)
        own = {name: it for name, it in vars(self).items() if it is not None}
        resize = like["resize"] if self.size is None else round(self.size * 9 / 8)
        taken = {"size": like["size"], "interpolation": like["interpolation"], "resize": resize}
        return dataclasses.replace(self, **{**taken, **own})


def load_arrays(
    name: str,
    train: tuple[Any, Any],
    validation: Any,
    facts: DomainOptions,
    *,
    multiple_of: int = 1,
    bar: bool = False,
) -> DomainData:
    """Decode and describe a domain whose images are in memory.

    Args:
      name: of the domain.
      train: its images and labels; see `sources.arrays.open_arrays`.
      validation: images and labels; or the share of each class that is cut from train, chosen by
        the places of the images; None or 0: there are none.
      facts: with sizes.
      multiple_of: what the backbone wants `size` to be a multiple of, in pixels.
      bar: show a progress bar.

    Raises:
      ValueError: images that cannot be read, labels that do not fit, or facts outside their ranges.
    """
    own = isinstance(validation, tuple)
    pairs = {"train": train, **({"val": validation} if own else {})}
    source = open_arrays(name, pairs, facts.classes)
    check("size", facts.size, whole(multiple_of, multiple_of=multiple_of), f"domain {name!r}: ")
    known: dict[str, Any] = {
        key: it for key, it in vars(facts).items() if it is not None and key != "classes"
    }
    half = (0.5, 0.5, 0.5)
    domain = Domain(name, source.classes, **{"mean": half, "std": half, **known})  # checks first
    splits = {split: decode_split(source, split, domain.resizing, bar=bar) for split in pairs}
    held_out = HeldOut()
    if not own and validation is not None:
        check("validation", validation, FRACTION, f"domain {name!r}: ")
        whole_split = splits["train"]
        names, targets = whole_split.own_names, whole_split.targets
        if validation and len(val := choose_held_out(names, targets, "random", validation)):
            splits = {"train": whole_split.without(val), "val": whole_split.subset(val)}
            held_out = HeldOut.of(splits["val"].own_names)
    warn_of_empty_classes(domain, splits["train"])
    mean, std = splits["train"].statistics()
    domain = dataclasses.replace(domain, **{"mean": mean, "std": std, **known})
    return DomainData(domain, splits, None, held_out)
