"""Train, evaluate, fold and export domains one after another; print the maps after each as JSON.

python tests/one_after_another.py FOLDER COUNT MOST

MOST are the maps above which programs are dropped.

Each has a class count of its own, and the adapter kinds take turns.
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np
import process
from families import empty_family
from PIL import Image
from test_end_to_end import small

from radapt_jax import Family
from radapt_jax.data.sources.embedded import open_embedded
from radapt_jax.experiment.run import train_and_evaluate
from radapt_jax.utils import distributed, programs

METHODS = (*["linear"] * 4, "parallel", *["linear"] * 4, "series")
FOLDER = {"data.source": "folder", "data.val_fraction": 0.0, "data.resize": 16}
SHORT = {"train.steps": 1, "train.evals": 1, "train.batch_size": 8}


def make(folder, patches, classes):
    """Write a domain of one training and one test image a class."""
    for index in range(classes):
        for split, part in zip(("train", "test"), patches, strict=True):
            place = folder / split / f"class{index:02}"
            place.mkdir(parents=True)
            Image.fromarray(part[index][::2, ::2]).save(place / "0.png")


def run(root, count):
    pictures = open_embedded("pictures").splits
    patches = [[example.image for example in pictures[name]()] for name in ("train", "test")]
    empty_family().save(root / "backbone")
    counts = []
    for index in range(count):
        name, method = f"d{index:02}", METHODS[index % len(METHODS)]
        make(root / "data" / name, patches, 2 + index)
        changes = {"domains": name, "init_from": str(root / "backbone"), **FOLDER, **SHORT}
        config = small(method, root / "cache", **changes, **{"data.dir": str(root / "data")})
        train_and_evaluate(config, root / name)
        family = Family.load(root / name)
        batch = np.stack([part[::2, ::2] for part in patches[1][:4]])[:, :16, :16]
        family.fold(name).predict(batch)
        family.export(name, root / f"{name}.stablehlo", platforms=["cpu"])
        counts.append(process.maps())
    return counts


if __name__ == "__main__":
    distributed.devices = lambda: jax.devices()[:1]
    programs.MOST = int(sys.argv[3])
    print(json.dumps(run(Path(sys.argv[1]), int(sys.argv[2]))))
