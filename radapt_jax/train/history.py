"""What a training measured on its way."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import NamedTuple


class Metrics(NamedTuple):
    """The means of some training steps, or an evaluation on the validation images.

    `loss` is in nats, `top1` in percent; `learning_rate` is of training steps.
    """

    step: int
    epoch: float
    split: str
    loss: float
    top1: float
    learning_rate: float | None


@dataclasses.dataclass(frozen=True)
class History:
    """What a training measured, in order; `rows` are those of metrics/<domain>.csv."""

    rows: tuple[Metrics, ...]

    @classmethod
    def of_rows(cls, rows: Iterable[Mapping[str, str]]) -> History:
        """Return what rows of a log say."""
        return cls(
            tuple(
                Metrics(
                    step=int(row["step"]),
                    epoch=float(row["epoch"]),
                    split=row["split"],
                    loss=float(row["loss"]),
                    top1=float(row["top1"]),
                    learning_rate=float(row["learning_rate"]) if row.get("learning_rate") else None,
                )
                for row in rows
            )
        )

    def of(self, split: str) -> tuple[Metrics, ...]:
        """Return the rows of "train" or "val"."""
        return tuple(row for row in self.rows if row.split == split)
