"""The runs of train.py that a study of compression stands on, each in a workdir of its own."""

import dataclasses
import subprocess
import sys
from pathlib import Path

from machine import ROOT

DOMAINS = (
    *("cifar100", "gtsrb", "omniglot", "chars74k", "daimler_ped"),
    *("dtd10", "pacs_sketch", "rsscn7", "vgg_flowers"),
)


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
        name = "".join(it if it.isalnum() else "_" for it in f"{way} {rate}")
        workdir = self.folder / name / f"seed{seed}"
        entries = {f"compress.{key}": value for key, value in how.items()}
        entries |= {"optim.learning_rate": rate, "train.epochs": float(epochs)}
        self._run("compress", workdir, seed, init_from=self.dense(seed), **entries)
        return workdir

    def _run(self, recipe, workdir, seed, **entries):
        """Run a recipe to its end, unless it has been."""
        if (workdir / "results.json").is_file():
            return
        flags = {"data.dir": self.data, "data.cache": self.cache, "seed": seed, **entries}
        command = [sys.executable, str(ROOT / "train.py"), "--workdir", str(workdir)]
        command += ["--config", str(ROOT / "configs" / f"decathlon_like.py:{recipe}")]
        command += [f"--config.{name}={value}" for name, value in flags.items()]
        subprocess.run(command, check=True)
