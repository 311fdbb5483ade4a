"""What a run writes while it trains: a progress bar, a CSV file and TensorBoard events."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import tensorboardX
import tqdm

from radapt_jax.files import write_atomically

COLUMNS = ("step", "epoch", "split", "loss", "top1", "learning_rate", "images_per_second")


class RunLog:
    """Metrics of one domain's training, in `<workdir>/metrics` and `<workdir>/tensorboard`.

    Args:
      workdir: of the run.
      name: of the domain.
      start: the step from which training goes on; rows after it are dropped, so that a resumed
        run leaves no row twice.
      total: steps in all.
      batch_size: images in a step, for the progress bar.
    """

    def __init__(self, workdir: Path, name: str, start: int, total: int, batch_size: int) -> None:
        self.path = workdir / "metrics" / f"{name}.csv"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        rows = [row for row in read(self.path) if int(row["step"]) <= start]
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.path, text.getvalue())
        self._events = tensorboardX.SummaryWriter(
            str(workdir / "tensorboard" / name), purge_step=start + 1 if start else None
        )
        self._batch_size = batch_size
        self._bar = tqdm.tqdm(
            total=total * batch_size,
            initial=start * batch_size,
            desc=name,
            unit=" images",
            unit_scale=True,
            mininterval=1.0,
            dynamic_ncols=True,
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
        """Write one row; loss in nats, top1 in percent."""
        row = {"step": step, "epoch": f"{epoch:.4f}", "split": split}
        row |= {name: f"{value:.6g}" for name, value in values.items()}
        with open(self.path, "a", newline="") as file:
            csv.DictWriter(file, COLUMNS).writerow(row)
        for name, value in values.items():
            self._events.add_scalar(f"{split}/{name}", value, step)
        shown = {
            f"{split} loss": f"{values['loss']:.3f}",
            f"{split} top-1": f"{values['top1']:.1f}%",
        }
        self._shown = {**getattr(self, "_shown", {}), **shown}
        self._bar.set_postfix(self._shown, refresh=False)


class NoLog:
    """Takes the place of `RunLog` in processes that write nothing."""

    def __exit__(self, *_: object) -> None:
        pass

    def advance(self) -> None:
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
