"""Training states of one domain, to resume from; a damaged one is never used.

<folder>/<step>/            Orbax: a state; validation top-1, checksum and what was measured since
                            the last row of metrics as metadata
<folder>/damaged-<step>/    one that was found damaged, set aside
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import serialization
from orbax.checkpoint import v1 as ocp

from radapt_jax.utils import distributed, files, trees

log = logging.getLogger(__name__)
# Errors that pass: no permission, too many files, no memory, a file server in trouble.
PASSING = (
    errno.EACCES,
    errno.EPERM,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.EIO,
    errno.ESTALE,
)
Card = dict[str, Any]
Measured = Mapping[str, Sequence[float]]


class TrainingCheckpoints:
    """Training states of one domain: the two latest, and the one of the best validation top-1.

    A context manager: saving goes on in the background, and leaving waits for it. Opening reads
    every state there is. Damaged ones are set aside with a warning, so that `latest` and `best` are
    of those that are intact, and what killed saves left is removed. Of several processes all do
    this together (Orbax counts what each process saves and loads); process 0 writes.

    Args:
      folder: where they are kept.
      leave_out: fields of the state that are not saved, because they are frozen and on disk
        already (the shared weights).
    """

    def __init__(self, folder: str | Path, leave_out: Collection[str] = ()) -> None:
        self._folder = Path(folder).absolute()
        self._leave_out = leave_out
        self._saving: tuple[int, Card, Any] | None = None
        steps = distributed.by_main(lambda: _clean(self._folder))
        with distributed.agreed():  # all have read before one renames
            intact, damaged = _checked(self._folder, steps)
        self._cards = distributed.by_main(lambda: _set_aside(intact, damaged))

    def __enter__(self) -> TrainingCheckpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self._finish()

    def top1(self) -> dict[int, float]:
        """Return the validation top-1 (percent) by step of the checkpoints there are."""
        self._finish()
        return _top1(self._cards)

    @property
    def latest(self) -> int | None:
        """The step of the newest checkpoint, or None."""
        return max(self.top1(), default=None)

    @property
    def best(self) -> int | None:
        """The step of the checkpoint with the highest validation top-1 (the last of equals)."""
        return best_of(self.top1())

    def measured(self, step: int | None) -> Measured | None:
        """Return what `save` was given of that name; None for no step."""
        return None if step is None else self._cards[step]["measured"]

    def save(self, step: int, state: Any, top1: float, measured: Measured) -> None:
        """Save a training state in the background; it is copied to the host first.

        Args:
          step: after which it is.
          state: of training.
          top1: on validation images, in percent.
          measured: values of the steps since the last row of metrics, by name.

        Raises:
          OSError: this state, or the one before it, could not be saved. Those that were saved are
            as they were.
        """
        self._finish()
        host = jax.tree.map(np.array, self._part(state))
        card: Card = {"top1": float(top1), "measured": measured}
        card["sha256"] = _fingerprint(host, card)
        path = self._folder / str(step)
        with files.saving(path), distributed.together():
            under_way = ocp.save_async(path, host, custom_metadata=card)
        self._saving = step, card, under_way

    def load(self, step: int, like: Any) -> Any:
        """Return a state as `like`, on the host, with what was saved at `step`.

        Raises:
          ValueError: the state is damaged, or shapes or dtypes differ from `like`'s.
        """
        self._finish()
        path = self._folder / str(step)
        try:
            found, _ = _read(path)
        except ValueError as error:
            raise ValueError(
                f"{error}\nStart the same command again: it goes on with the intact states."
            ) from error
        expected = self._part(like)
        what = f"the training state {path}"
        trees.check_like(_without_empty(found), _without_empty(expected), what)
        kept = serialization.to_state_dict(like)
        return serialization.from_state_dict(like, {**kept, **_fill_empty(found, expected)})

    def _part(self, state: Any) -> dict[str, Any]:
        fields = serialization.to_state_dict(state)
        return {name: tree for name, tree in fields.items() if name not in self._leave_out}

    def _finish(self) -> None:
        """Wait for the save that is under way; only then are older states removed."""
        if self._saving is None:
            return
        (saved, card, under_way), self._saving = self._saving, None
        with files.saving(self._folder / str(saved)):
            under_way.result()
        self._cards[saved] = card
        kept = {*sorted(self._cards)[-2:], best_of(_top1(self._cards))}
        for step in self._cards.keys() - kept:
            del self._cards[step]
            if distributed.is_main():
                files.remove(self._folder / str(step))


def _top1(cards: Mapping[int, Card]) -> dict[int, float]:
    return {step: float(card["top1"]) for step, card in cards.items()}


def best_of(top1: Mapping[int, float]) -> int | None:
    """Return the step of the highest top-1, the last of equals."""
    return max(top1, key=lambda step: (top1[step], step), default=None)


def _clean(folder: Path) -> list[int]:
    """Make the folder, remove what killed saves and removals left, and return the steps there."""
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in (*folder.glob("*.orbax-checkpoint-tmp*"), *folder.glob(".*.old")):
        shutil.rmtree(leftover, ignore_errors=True)
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())


def _checked(folder: Path, steps: Sequence[int]) -> tuple[dict[int, Card], dict[Path, ValueError]]:
    """Return the cards of intact states by step, and what is wrong with the others."""
    intact: dict[int, Card] = {}
    damaged: dict[Path, ValueError] = {}
    for step in steps:
        path = folder / str(step)
        try:
            _, intact[step] = _read(path)
        except ValueError as error:
            damaged[path] = error
    return intact, damaged


def _set_aside(intact: dict[int, Card], damaged: dict[Path, ValueError]) -> dict[int, Card]:
    """Rename the damaged states, and return the intact ones."""
    what_next = (
        f"training goes on from step {max(intact)}, the best state left is of step "
        f"{best_of(_top1(intact))}"
        if intact
        else "there is no other, training starts from the beginning"
    )
    for path, why in damaged.items():
        times = len(list(path.parent.glob(f"damaged-{path.name}*")))
        aside = path.with_name(f"damaged-{path.name}" + (f".{times}" if times else ""))
        os.replace(path, aside)
        log.warning("%s\nIt is now %s; %s.", why, aside, what_next)
    return intact


def _read(path: Path) -> tuple[dict[str, Any], Card]:
    """Return the fields of a state and its card.

    Raises:
      ValueError: they are not what was saved.
      OSError, MemoryError: they cannot be read now; that tells nothing of what is there.
    """
    try:
        found = jax.tree.map(np.array, ocp.load(path))  # first: all processes load as often
        card = ocp.metadata(path).custom_metadata
        intact = card["sha256"] == _fingerprint(found, card)
    except Exception as error:
        if isinstance(error, MemoryError) or getattr(error, "errno", None) in PASSING:
            raise
        raise ValueError(f"the training state {path} is damaged: {error!r}.") from error
    if not intact:
        raise ValueError(
            f"the training state {path} is damaged: its values are not those that were saved."
        )
    return found, dict(card)


def _fingerprint(state: Any, card: Card) -> str:
    values = {f"measured/{name}": np.float64(them) for name, them in card["measured"].items()}
    top1 = np.float64(card["top1"])
    return trees.fingerprint({**_without_empty(state), **values, "top1": top1})


def _without_empty(tree: Any) -> dict[str, Any]:
    return {path: leaf for path, leaf in trees.flatten(tree).items() if hasattr(leaf, "shape")}


def _fill_empty(found: Any, expected: Any) -> Any:
    """Put back the empty nodes of optimiser states (Orbax does not keep all of them)."""
    if not isinstance(expected, Mapping):
        return found
    return {key: _fill_empty(found.get(key, {}), value) for key, value in expected.items()}
