"""Which training images are held out for validation, and which of the others are used.

Both follow from hashes of the images' names, and not from how many there are: when a folder grows,
its training images stay training images. One thing a rule cannot keep: a class of which every
image would be held out keeps one to train on, and may hold that one out once it has others. What
was held out is therefore written into the domain's card, and goes before the rule.
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
    "Put the images back as they were, evaluate on images that have no part in training (--split "
    "test), or train the domain anew."
)
log = logging.getLogger(__name__)


class OtherImages(ValueError):
    """The images are not divided as a training divided them; some may be judged that it saw."""


def hashed(name: str) -> int:
    """Return the first 64 bits of a name's sha256."""
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "little")


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """The images of train that a domain's training held out, by their hashed names, sorted."""

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
        """Return the positions of these images among those of train.

        Args:
          names: uint64 (n,), hashed.
          domain: for the message.

        Raises:
          OtherImages: some are not there.
        """
        positions = np.flatnonzero(np.isin(names, np.array(self.names, HASHES)))
        found = HeldOut.of(names[positions])
        if found != self:
            raise OtherImages(
                f"domain {domain!r}: not all images are in train that its training held out of "
                "it.\n"
                f"  found:    {found}\n"
                f"  expected: {self}\n"
                f"Those that were renamed would count as training images. {REMEDY}"
            )
        return positions

    def _bytes(self) -> bytes:
        return np.array(self.names, HASHES).tobytes()

    def to_json(self) -> dict[str, Any]:
        names = base64.b64encode(self._bytes()).decode()
        return {"count": len(self.names), "digest": self.digest, "names": names}

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> HeldOut:
        """Undo `to_json`.

        Raises:
          KeyError, TypeError, ValueError: it is not of this form, or is damaged.
        """
        data = base64.b64decode(facts["names"], validate=True)
        found = cls(tuple(np.frombuffer(data, HASHES).tolist()))
        if (facts["count"], facts["digest"]) != (len(found.names), found.digest):
            raise ValueError(
                f"found {found} held out; expected {facts['count']} images, {facts['digest']}."
            )
        return found


class Record(NamedTuple):
    """What a card says of the images: those held out (None: it does not), the count by split."""

    held_out: HeldOut | None
    images: Mapping[str, int]


def check_record(record: Record, domain: str, there: Mapping[str, int], *, cut: bool) -> None:
    """Check that the validation images of a trained domain are those that it held out.

    Args:
      record: of the domain's card.
      domain: its name, for the message.
      there: how many images its splits train and val have now.
      cut: whether val is cut from train.

    Raises:
      OtherImages: they may have been trained on.
    """
    held_out = record.held_out
    if held_out is not None:
        if held_out.names and "val" in there and not cut:
            raise OtherImages(
                f"domain {domain!r}: its validation images are not those that its training held "
                "out.\n"
                f"  found:    a split val of {there['val']:,} images\n"
                f"  expected: out of train, {held_out}\n"
                f"Images of val may have been trained on. {REMEDY}"
            )
    elif cut:
        before = {name: record.images[name] for name in there if name in record.images}
        if before and before != there:
            raise OtherImages(
                f"domain {domain!r}: there are other images than when it was trained, and its card "
                "does not say which were held out of train.\n"
                f"  found:    {dict(there)}\n"
                f"  expected: {before}\n"
                f"{REMEDY}"
            )
        log.warning(
            "%s: its card does not say which images were held out of train. They are chosen as "
            "they were then; it cannot be checked that none of them has been trained on.",
            domain,
        )


def choose_held_out(
    names: np.ndarray | None, labels: np.ndarray, how: str, fraction: float
) -> np.ndarray:
    """Choose the positions of the images that are held out, at least one of two of a class.

    Args:
      names: uint64 (n,), hashed; None: choose as domains were cut whose cards say nothing of it.
      labels: int32 (n,).
      how: "random", or "blocks", the last images of each class.
      fraction: share that is held out; of "random" ones an image is, whose hash is below it.
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
        if names is not None:  # copies of an image have one name, and stay together
            picked = members[np.isin(names[members], names[picked])]
        if len(picked) < len(members):
            chosen.append(picked)
    return np.sort(np.concatenate(chosen))


def choose_used(
    names: np.ndarray, labels: np.ndarray, fraction: float, most: int, seed: int
) -> np.ndarray:
    """Choose the positions of the training images that are used; more of them include fewer.

    Args:
      names: uint64 (n,), hashed.
      labels: int32 (n,).
      fraction: share of each class; one image at the least.
      most: of a class; 0: no limit.
      seed: which images they are.
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
