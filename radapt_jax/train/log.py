"""What a run writes while it trains: a progress bar, a CSV file and TensorBoard events."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tensorboardX
import tqdm

from radapt_jax.utils.files import read_rows, write_atomically

COLUMNS = ("step", "epoch", "split", "loss", "top1", "learning_rate")
# Apart, because a resumed run has the same metrics, but not the same speed.
SPEED = ("step", "images_per_second")


Row = dict[str, str]


class Log:
    """Metrics of one domain's training, kept in memory, and its progress bar.

    Args:
      name: of the domain.
      start: the step from which training goes on.
      total: steps in all.
      batch_size: images in a step, for the progress bar.
      bar: show it.

    Attributes:
      rows: of the steps since `start`.
    """

    def __init__(
        self, name: str, start: int, total: int, batch_size: int, *, bar: bool = True
    ) -> None:
        self.rows: list[Row] = []
        self._batch_size = batch_size
        self._shown: dict[str, str] = {}
        self._bar = tqdm.tqdm(
            total=total * batch_size,
            initial=start * batch_size,
            desc=name,
            unit=" images",
            unit_scale=True,
            mininterval=1.0,
            dynamic_ncols=True,
            disable=not bar,
        )

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def rewind(self, step: int) -> None:
        """Go on from an earlier step: rows after it are dropped."""
        self.rows = _until(step, self.rows)
        self._bar.reset()
        self._bar.update(step * self._batch_size)

    def advance(self) -> None:
        """Count one step on the progress bar."""
        self._bar.update(self._batch_size)

    def write(self, step: int, epoch: float, split: str, **values: float) -> Row:
        """Note one row, and return it.

        Loss is in nats, top1 in percent, images_per_second what it says.
        """
        row = {"step": str(step), "epoch": f"{epoch:.4f}", "split": split}
        row |= {name: f"{value:.6g}" for name, value in values.items()}
        self.rows.append(row)
        self._shown |= {
            f"{split} loss": f"{values['loss']:.3f}",
            f"{split} top-1": f"{values['top1']:.1f}%",
        }
        self._bar.set_postfix(self._shown, refresh=False)
        return row


class RunLog(Log):
    """Metrics of one domain's training, in `<workdir>/metrics`, `speed` and `tensorboard`.

    Rows in these files after the step from which training goes on are dropped, so that a resumed
    run leaves no row twice.

    Args:
      workdir: of the run.
      name, start, total, batch_size, bar: see `Log`.
    """

    def __init__(
        self,
        workdir: Path,
        name: str,
        start: int,
        total: int,
        batch_size: int,
        *,
        bar: bool = True,
    ) -> None:
        self._tables = {
            workdir / "metrics" / f"{name}.csv": COLUMNS,
            workdir / "speed" / f"{name}.csv": SPEED,
        }
        self._events_dir = str(workdir / "tensorboard" / name)
        self._open(start)
        super().__init__(name, start, total, batch_size, bar=bar)

    def rewind(self, step: int) -> None:
        self._events.close()
        self._open(step)
        super().rewind(step)

    def _open(self, start: int) -> None:
        for path, columns in self._tables.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            text = io.StringIO()
            writer = csv.DictWriter(text, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(_until(start, read_rows(path)))
            write_atomically(path, text.getvalue())
        self._events = tensorboardX.SummaryWriter(self._events_dir, purge_step=start + 1)

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._events.close()

    def write(self, step: int, epoch: float, split: str, **values: float) -> Row:
        row = super().write(step, epoch, split, **values)
        for path, columns in self._tables.items():
            if columns[1] in row:  # a validation row has no speed
                with open(path, "a", newline="") as file:
                    csv.DictWriter(file, columns, extrasaction="ignore").writerow(row)
        for name, value in values.items():
            self._events.add_scalar(f"{split}/{name}", value, step)
        return row


def _until(step: int, rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if int(row["step"]) <= step]


class Meter:
    """Means of the steps since the last row; reading them waits for the device.

    Args:
      index: the domain's place in what is measured, where several are trained at once.
      values: of steps before, as `values` returned them.
    """

    def __init__(self, index: int, values: Mapping[str, Sequence[float]] | None = None) -> None:
        self._index = index
        self._values = {name: list(values[name]) if values else [] for name in ("loss", "top1")}
        self._waiting: list[Mapping[str, Any]] = []  # still on the device
        self._images = 0
        self._since = time.monotonic()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._values["loss"])

    def add(self, measured: Mapping[str, Any], images: int) -> None:
        """Add a step of so many images."""
        self._waiting.append(measured)
        self._images += images

    def values(self) -> dict[str, list[float]]:
        """Return "loss" (nats) and "top1" (in [0, 1]) of every step."""
        for measured in jax.device_get(self._waiting):
            for name, known in self._values.items():
                known.append(float(np.ravel(measured[name])[self._index]))
        self._waiting = []
        return {name: list(known) for name, known in self._values.items()}

    def first_bad(self) -> int | None:
        """Return the place of the first step whose loss is not finite, if there is one."""
        bad = np.flatnonzero(~np.isfinite(self.values()["loss"]))
        return int(bad[0]) if len(bad) else None

    def means(self) -> dict[str, float]:
        """Return mean loss (nats), top-1 (percent) and images per second."""
        loss, top1 = (float(np.mean(values)) for values in self.values().values())
        speed = self._images / (time.monotonic() - self._since)
        return {"loss": loss, "top1": 100 * top1, "images_per_second": speed}
