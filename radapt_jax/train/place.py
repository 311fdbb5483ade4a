"""Where a training keeps its states and its metrics: in a workdir, or in memory alone."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from radapt_jax.train.checkpoints import Measured, TrainingCheckpoints, best_of
from radapt_jax.train.log import Log, RunLog
from radapt_jax.train.resume import check_resumed, skipped_before, skipped_path
from radapt_jax.train.step import TrainState
from radapt_jax.utils import distributed, files


class Checkpoints(Protocol):
    """States of one domain's training; see `TrainingCheckpoints`."""

    @property
    def latest(self) -> int | None: ...
    @property
    def best(self) -> int | None: ...
    def top1(self) -> dict[int, float]: ...
    def measured(self, step: int | None) -> Measured | None: ...
    def save(self, step: int, state: Any, top1: float, measured: Measured) -> None: ...
    def load(self, step: int, like: Any) -> Any: ...
    def __exit__(self, *_: object) -> None: ...


class Place(Protocol):
    """Where the trainings of some domains, by name, keep what they need."""

    def where(self, name: str) -> str:
        """Return what messages call it."""
        ...

    def begin(self, name: str, facts: Mapping[str, Any]) -> None:
        """Check that a training goes on with what it began with."""
        ...

    def checkpoints(self, name: str, leave_out: Collection[str]) -> Checkpoints: ...

    def log(self, name: str, start: int, total: int, batch_size: int) -> Log: ...

    def skipped(self, name: str) -> list[int]:
        """Return the batches that have been left out so far."""
        ...

    def skip(self, name: str, skipped: Sequence[int]) -> None: ...

    def rows(self, name: str) -> list[dict[str, str]]:
        """Return the rows of metrics, as `log` writes them."""
        ...


class InWorkdir:
    """A folder to resume from: `training`, `metrics`, `speed` and `tensorboard` in it.

    Args:
      workdir: the folder; process 0 writes.
      bar: show a progress bar.
      also: more facts, by part, that a training must keep when it goes on.
    """

    def __init__(
        self, workdir: Path, *, bar: bool = True, also: Mapping[str, Any] | None = None
    ) -> None:
        self._workdir, self._bar, self._also = workdir, bar, also or {}

    def _folder(self, name: str) -> Path:
        return self._workdir / "training" / name

    def where(self, name: str) -> str:
        return str(self._folder(name))

    def begin(self, name: str, facts: Mapping[str, Any]) -> None:
        path = self._folder(name).with_name(f"{name}.json")
        now = json.loads(json.dumps({**facts, **self._also}, default=lambda it: it.item()))
        distributed.by_main(lambda: check_resumed(path, name, now))

    def checkpoints(self, name: str, leave_out: Collection[str]) -> Checkpoints:
        return TrainingCheckpoints(self._folder(name), leave_out)

    def log(self, name: str, start: int, total: int, batch_size: int) -> Log:
        if not distributed.is_main():
            return Log(name, start, total, batch_size, bar=False)
        return RunLog(self._workdir, name, start, total, batch_size, bar=self._bar)

    def skipped(self, name: str) -> list[int]:
        return skipped_before(self._folder(name))

    def skip(self, name: str, skipped: Sequence[int]) -> None:
        path, text = skipped_path(self._folder(name)), json.dumps(list(skipped)) + "\n"
        distributed.by_main(lambda: files.write_atomically(path, text))

    def rows(self, name: str) -> list[dict[str, str]]:
        path = self._workdir / "metrics" / f"{name}.csv"
        return distributed.by_main(lambda: files.read_rows(path))


class InMemory:
    """Nothing is written; the states and metrics are lost with this object."""

    def __init__(self, *, bar: bool = True) -> None:
        self._bar, self._logs = bar and distributed.is_main(), dict[str, Log]()

    def where(self, name: str) -> str:
        return "in memory"

    def begin(self, name: str, facts: Mapping[str, Any]) -> None:
        pass

    def checkpoints(self, name: str, leave_out: Collection[str]) -> Checkpoints:
        return MemoryCheckpoints(leave_out)

    def log(self, name: str, start: int, total: int, batch_size: int) -> Log:
        self._logs[name] = Log(name, start, total, batch_size, bar=self._bar)
        return self._logs[name]

    def skipped(self, name: str) -> list[int]:
        return []

    def skip(self, name: str, skipped: Sequence[int]) -> None:
        pass

    def rows(self, name: str) -> list[dict[str, str]]:
        return self._logs[name].rows


class MemoryCheckpoints:
    """The latest state of a training and its best, on the host; as `TrainingCheckpoints`.

    Args:
      leave_out: fields of the state that are not copied, because they are frozen.
    """

    def __init__(self, leave_out: Collection[str] = ()) -> None:
        self._leave_out = leave_out
        self._kept: dict[int, tuple[TrainState, float, Measured]] = {}

    def __exit__(self, *_: object) -> None:
        pass

    def top1(self) -> dict[int, float]:
        return {step: top1 for step, (_, top1, _) in self._kept.items()}

    @property
    def latest(self) -> int | None:
        return max(self._kept, default=None)

    @property
    def best(self) -> int | None:
        return best_of(self.top1())

    def measured(self, step: int | None) -> Measured | None:
        return None if step is None else self._kept[step][2]

    def save(self, step: int, state: TrainState, top1: float, measured: Measured) -> None:
        own = state.replace(**dict.fromkeys(self._leave_out))
        self._kept[step] = jax.tree.map(np.array, own), top1, measured
        self._kept = {it: self._kept[it] for it in {self.latest, self.best} if it is not None}

    def load(self, step: int, like: TrainState) -> TrainState:
        own, _, _ = self._kept[step]
        return own.replace(**{name: getattr(like, name) for name in self._leave_out})
