"""What a run writes while it trains: a progress bar, a CSV file and TensorBoard events."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import tensorboardX
import tqdm

from radapt_jax.files import write_atomically

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
            writer.writerows(row for row in read(path) if int(row["step"]) <= start)
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


def read(path: Path) -> list[dict[str, str]]:
    """Return the rows of a metrics file as text; none where there is no file.

    A last row that was cut short by a kill is left out.
    """
    if not path.is_file():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(line for line in file if line.endswith("\n")))
