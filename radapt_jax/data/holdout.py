"""Which training images are held out for validation, and which of the others are used.

Both depend on hashes of the images' names, not on how many images there are: when a folder grows,
its training images stay training images. There is one exception: if every image of a class would be
held out, one is kept for training, and the rule may hold it out once the class has grown. The
domain's card therefore lists the images that were held out, and takes precedence over the rule.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import logging
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

HASHES = np.dtype("<u8")
REMEDY = (
    "Restore the images as they were, evaluate on images that have no part in training (--split "
    "test), or train the domain anew."
)
log = logging.getLogger(__name__)


class OtherImages(ValueError):
    """The images are not split as in training: evaluation might see images trained on."""


def hashed(name: str) -> int:
    """Return the first 64 bits of a name's sha256, as an integer."""
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "little")


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """The images of train that were held out when a domain was trained: hashed names, sorted."""

    names: tuple[int, ...] = ()

    @classmethod
    def of(cls, names: Iterable[int]) -> HeldOut:
        return cls(tuple(sorted(map(int, names))))

    @property
    def digest(self) -> str:
        return hashlib.sha256(self._bytes()).hexdigest()

    def __str__(self) -> str:
        return f"{len(self.names):,} images, their names' sha256 {self.digest[:12]}..."

    def find(self, names: np.ndarray, domain: str) -> np.ndarray:
        """Return the positions of the held-out images among those of train, int64 (m,).

        Args:
          names: of the images of train, uint64 (n,), hashed.
          domain: its name, for the message.

        Raises:
          OtherImages: some are missing.
        """
        positions = np.flatnonzero(np.isin(names, np.array(self.names, HASHES)))
        found = HeldOut.of(names[positions])
        if found != self:
            raise OtherImages(
                f"domain {domain!r}: some of the images that were held out of train are no longer "
                "there.\n"
                f"  found:    {found}\n"
                f"  expected: {self}\n"
                f"Images that were renamed would count as training images. {REMEDY}"
            )
        return positions

    def _bytes(self) -> bytes:
        return np.array(self.names, HASHES).tobytes()

    def to_json(self) -> dict[str, Any]:
        names = base64.b64encode(self._bytes()).decode()
        return {"count": len(self.names), "digest": self.digest, "names": names}

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> HeldOut:
        """Return what `to_json` describes.

        Raises:
          KeyError: an entry is missing.
          TypeError: an entry is of the wrong type.
          ValueError: count or digest do not match the names.
        """
        data = base64.b64decode(facts["names"], validate=True)
        found = cls(tuple(np.frombuffer(data, HASHES).tolist()))
        if (facts["count"], facts["digest"]) != (len(found.names), found.digest):
            raise ValueError(
                f"found {found} held out; expected {facts['count']} images, {facts['digest']}."
            )
        return found


class Record(NamedTuple):
    """What a card says about the images: those held out (None: not recorded), counts by split."""

    held_out: HeldOut | None
    images: Mapping[str, int]


def check_record(record: Record, domain: str, there: Mapping[str, int], *, cut: bool) -> None:
    """Check that the validation images of a trained domain are those that were held out.

    Args:
      record: of the domain's card.
      domain: its name, for the message.
      there: image counts of train and val now.
      cut: whether val is cut from train.

    Raises:
      OtherImages: some may have been trained on.
    """
    held_out = record.held_out
    if held_out is not None:
        if held_out.names and "val" in there and not cut:
            raise OtherImages(
                f"domain {domain!r}: its validation images are not those that were held out in "
                "training.\n"
                f"  found:    a split val of {there['val']:,} images\n"
                f"  expected: cut from train, {held_out}\n"
                f"Images of val may have been trained on. {REMEDY}"
            )
    elif cut:
        before = {name: record.images[name] for name in there if name in record.images}
        if before and before != there:
            raise OtherImages(
                f"domain {domain!r}: the image counts have changed since it was trained, and its "
                "card does not say which images were held out of train.\n"
                f"  found:    {dict(there)}\n"
                f"  expected: {before}\n"
                f"{REMEDY}"
            )
        log.warning(
            "%s: its card does not say which images were held out of train. They are chosen by the "
            "same rule; it cannot be checked that none of them has been trained on.",
            domain,
        )


def choose_held_out(
    names: np.ndarray | None, labels: np.ndarray, how: str, fraction: float
) -> np.ndarray:
    """Return the positions of the images to hold out, sorted, int64 (m,).

    At least one image of a class is held out, and at least one is left to train on, provided that
    the class has two.

    Args:
      names: uint64 (n,), hashed. None applies the old rule, for domains whose cards do not list
        the images held out.
      labels: int32 (n,).
      how: "random", or "blocks" for the last images of each class.
      fraction: share of each class, in [0, 1); "random" takes the images whose hash, scaled to
        [0, 1), is below it.
    """
    chosen = [np.empty(0, np.int64)]
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        amount = round(fraction * len(members))
        if how == "random":
            if names is None:
                members = np.random.default_rng([len(labels), label]).permutation(members)
            else:
                members = members[np.argsort(names[members], kind="stable")[::-1]]
                amount = int((names[members] / 2.0**64 < fraction).sum())
        amount = min(max(amount, 1), len(members) - 1)  # one is left to train on
        picked = members[len(members) - amount :]
        if names is not None:  # copies of an image share a name and stay together
            picked = members[np.isin(names[members], names[picked])]
        if len(picked) < len(members):
            chosen.append(picked)
    return np.sort(np.concatenate(chosen))


def choose_used(
    names: np.ndarray, labels: np.ndarray, fraction: float, most: int, seed: int
) -> np.ndarray:
    """Return the positions of the training images to use, sorted, int64 (m,).

    A larger choice includes a smaller one of the same seed.

    Args:
      names: uint64 (n,), hashed.
      labels: int32 (n,).
      fraction: share of each class, in (0, 1]; at least one image.
      most: the largest number of images of a class; 0: no limit.
      seed: decides which images they are.
    """
    if fraction == 1.0 and most == 0:
        return np.arange(len(labels))
    ranks = np.array([hashed(f"{seed} {name}") for name in names.tolist()], HASHES)
    chosen = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        amount = max(round(fraction * len(members)), 1)
        amount = min(amount, most) if most else amount
        chosen.append(members[np.argsort(ranks[members], kind="stable")[:amount]])
    return np.sort(np.concatenate(chosen))
