"""Runs of train.py that studies stand on: the nine domains, and a run that is finished once."""

import subprocess
import sys

from machine import ROOT, commit

SOURCE = "tiny_imagenet"  # that backbones are pre-trained on
DOMAINS = (
    *("cifar100", "gtsrb", "omniglot", "chars74k", "daimler_ped"),
    *("dtd10", "pacs_sketch", "rsscn7", "vgg_flowers"),
)


def finish(recipe, workdir, entries):
    """Run a recipe of configs/decathlon_like.py to its end, unless it has been.

    Args:
      recipe: its name.
      workdir: of the run; a stopped one goes on.
      entries: of the config, by name.
    """
    if (workdir / "results.json").is_file():
        return
    command = [sys.executable, str(ROOT / "train.py"), "--workdir", str(workdir)]
    command += ["--config", str(ROOT / "configs" / f"decathlon_like.py:{recipe}")]
    command += [f"--config.{name}={value}" for name, value in entries.items()]
    begun = commit()
    subprocess.run(command, check=True)
    (workdir / "commit").write_text(begun)


def folder_name(name):
    """Return a name for a folder: letters, digits and underscores."""
    return "".join(it if it.isalnum() else "_" for it in name)
