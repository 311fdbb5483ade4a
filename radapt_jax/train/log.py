"""What a run writes while it trains: a progress bar, a CSV file and TensorBoard events."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping, Sequence
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


class RunLog:
    """Metrics of one domain's training, in `<workdir>/metrics`, `speed` and `tensorboard`.

    Args:
      workdir: of the run.
      name: of the domain.
      start: the step from which training goes on; rows after it are dropped, so that a resumed
        run leaves no row twice.
      total: steps in all.
      batch_size: images in a step, for the progress bar.
    """

    def __init__(self, workdir: Path, name: str, start: int, total: int, batch_size: int) -> None:
        self._tables = {
            workdir / "metrics" / f"{name}.csv": COLUMNS,
            workdir / "speed" / f"{name}.csv": SPEED,
        }
        self._events_dir = str(workdir / "tensorboard" / name)
        self._batch_size = batch_size
        self._shown: dict[str, str] = {}
        self._open(start)
        self._bar = tqdm.tqdm(
            total=total * batch_size,
            initial=start * batch_size,
            desc=name,
            unit=" images",
            unit_scale=True,
            mininterval=1.0,
            dynamic_ncols=True,
        )

    def rewind(self, step: int) -> None:
        """Go on from an earlier step: rows after it are dropped."""
        self._events.close()
        self._open(step)
        self._bar.reset()
        self._bar.update(step * self._batch_size)

    def _open(self, start: int) -> None:
        for path, columns in self._tables.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            text = io.StringIO()
            writer = csv.DictWriter(text, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(row for row in read_rows(path) if int(row["step"]) <= start)
            write_atomically(path, text.getvalue())
        self._events = tensorboardX.SummaryWriter(
            self._events_dir, purge_step=start + 1 if start else None
        )

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        self._events.close()

    def advance(self) -> None:
        """Count one step on the progress bar."""
        self._bar.update(self._batch_size)

    def write(self, step: int, epoch: float, split: str, **values: float) -> None:
        """Write one row; loss in nats, top1 in percent, speed in images per second."""
        row = {"step": str(step), "epoch": f"{epoch:.4f}", "split": split}
        row |= {name: f"{value:.6g}" for name, value in values.items()}
        for path, columns in self._tables.items():
            if columns[1] in row:  # a validation row has no speed
                with open(path, "a", newline="") as file:
                    csv.DictWriter(file, columns, extrasaction="ignore").writerow(row)
        for name, value in values.items():
            self._events.add_scalar(f"{split}/{name}", value, step)
        shown = {
            f"{split} loss": f"{values['loss']:.3f}",
            f"{split} top-1": f"{values['top1']:.1f}%",
        }
        self._shown |= shown
        self._bar.set_postfix(self._shown, refresh=False)


class NoLog:
    """Takes the place of `RunLog` in processes that write nothing."""

    def __exit__(self, *_: object) -> None:
        pass

    def advance(self) -> None:
        pass

    def rewind(self, step: int) -> None:
        pass

    def write(self, step: int, epoch: float, split: str, **values: float) -> None:
        pass


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
