"""The runs of train.py that a study of compression stands on, each in a workdir of its own."""

import dataclasses
from pathlib import Path

from trained_runs import DOMAINS, finish, folder_name


@dataclasses.dataclass(frozen=True)
class Runs:
    """Workdirs in a folder, of images in another, which are decoded into a third."""

    folder: Path
    data: Path
    cache: Path

    def dense(self, seed):
        """Return the workdir of a seed with parallel adapters; it is trained if it is not there."""
        source = self.folder / "pretrain"
        self._run("scratch", source, 0)
        workdir = self.folder / "dense" / f"seed{seed}"
        self._run("parallel", workdir, seed, init_from=source, domains=",".join(DOMAINS))
        return workdir

    def smaller(self, way, how, seed, rate, epochs):
        """Return the workdir of a way to make a seed's domains smaller, after fine-tuning."""
        name = folder_name(f"{way} {rate}")
        workdir = self.folder / name / f"seed{seed}"
        entries = {f"compress.{key}": value for key, value in how.items()}
        entries |= {"optim.learning_rate": rate, "train.epochs": float(epochs)}
        self._run("compress", workdir, seed, init_from=self.dense(seed), **entries)
        return workdir

    def _run(self, recipe, workdir, seed, **entries):
        """Run a recipe to its end, unless it has been."""
        places = {"data.dir": self.data, "data.cache": self.cache, "seed": seed}
        finish(recipe, workdir, {**places, **entries})
