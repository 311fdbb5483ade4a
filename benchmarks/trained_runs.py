"""Runs of train.py that studies stand on: the nine domains, and a run that is finished once."""

import json
import subprocess
import sys
from os.path import relpath

import machine
from machine import ROOT

from radapt_jax.utils.files import write_atomically

MADE = "made.json"  # in a workdir whose run ended well: by which entries, at which commit, on what
SOURCE = "tiny_imagenet"  # that backbones are pre-trained on
PLACES = ("data.dir", "data.cache")  # of a config, which make no difference to a run
RUNS = ("init_from", "teachers")
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

    Raises:
      SystemExit: the workdir holds a run that was made otherwise.
    """
    asked = {"recipe": recipe, **_compared(entries, workdir)}
    made = workdir / MADE
    if made.is_file():
        before = json.loads(made.read_text())["entries"]
        names = sorted(name for name in {**before, **asked} if before.get(name) != asked.get(name))
        if names:
            told = ", ".join(f"{it} was {before.get(it)}, is {asked.get(it)}" for it in names)
            raise SystemExit(
                f"error: {workdir} holds a run that was made otherwise: {told}.\nExpected the "
                "same. Remove that folder, or name another with --runs."
            )
        return
    command = [sys.executable, str(ROOT / "train.py"), "--workdir", str(workdir)]
    command += [f"--config={ROOT / 'configs' / f'decathlon_like.py:{recipe}'}"]
    command += [f"--config.{name}={value}" for name, value in entries.items()]
    facts = machine.facts()
    subprocess.run(command, check=True)
    write_atomically(made, json.dumps({"entries": asked, "facts": facts}, indent=1) + "\n")


def _compared(entries, workdir):
    """Return what makes a run: other runs by where they are from it, and no place of images."""
    kept = {name: value for name, value in entries.items() if name not in PLACES}
    return {it: relpath(value, workdir) if it in RUNS else str(value) for it, value in kept.items()}


def facts_of(workdir):
    """Return device, version of JAX and commit of a finished run, as its rows have them."""
    return json.loads((workdir / MADE).read_text())["facts"]


def folder_name(name):
    """Return a name for a folder: letters, digits and underscores."""
    return "".join(it if it.isalnum() else "_" for it in name)
