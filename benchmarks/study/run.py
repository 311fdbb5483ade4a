"""Every method on nine real domains, with seeds: benchmarks/study.csv.

    python benchmarks/study/run.py --data data/decathlon_like

Each part is a run of train.py as a user would start it (configs/decathlon_like.py, 20 epochs at
width 0.25 and 32 px, on a backbone pre-trained on tiny-imagenet), in a workdir of its own under
`--runs`. A row is a domain of such a run: top-1 on validation and on test images, parameters,
bytes, images a second, minutes of training at that rate, and the commit that it was trained at.
Nothing is chosen on test images. All parts of a seed come before the next seed. Started again, the
command goes on where it was stopped: finished runs are kept, a stopped one continues from its last
checkpoint.
"""

import argparse
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import figures
import machine
import numpy as np
from machine import ROOT
from trained_runs import DOMAINS, SOURCE, facts_of, finish, folder_name
from transfer.command import add_flags

from radapt_jax.report.page.runs import read_runs
from study.parts import METHODS

KEY = ("method", "domain", "seed")
COLUMNS = (
    *KEY,
    *("train_images", "val_top1", "test_top1", "test_images", "parameters", "ratio", "basis"),
    *("bytes", "images_per_second", "minutes", "epochs"),
    *("size", "width", "device", "jax", "commit"),
)
PRETRAINING = {
    "backbone": {"train.epochs": 25.0},
    "backbone of 8 epochs": {"train.epochs": 8.0},
    "backbone with series adapters": {"train.epochs": 25.0, "adapter.kind": "series"},
}


class Runs:
    """Runs of train.py under a folder."""

    def __init__(self, arguments):
        self.folder, self.epochs = arguments.runs, arguments.epochs
        self.flags = {"data.dir": arguments.data, "data.cache": arguments.cache}

    def backbone(self, source):
        """Return the workdir of a backbone; it is trained if it is not there."""
        workdir = self.folder / source.replace(" ", "_")
        finish("scratch", workdir, {**self.flags, "train.evals": 5, **PRETRAINING[source]})
        return workdir

    def of(self, name, seed):
        """Return the workdir of a part and a seed; it is trained if it is not there."""
        part = METHODS[name]
        workdir = self.folder / folder_name(name) / f"seed{seed}"
        entries = {"seed": seed, "train.batch_size": 64}
        if part.after:  # all domains of that run, for as long as the recipe says
            entries["init_from"] = self.of(part.after, seed)
        else:
            entries |= {"train.epochs": self.epochs, "train.evals": 5}
            entries |= {"init_from": self.backbone(part.source), "domains": ",".join(DOMAINS)}
        if part.taught_by:
            entries["teachers"] = self.of(part.taught_by, seed)
        finish(part.recipe, workdir, {**self.flags, **entries, **part.entries})
        return workdir


def lines_of(workdir, method, seed):
    """Return a line for each domain of a finished run, and one for the backbone's own."""
    (run,) = read_runs([workdir])
    facts = facts_of(workdir)
    return [
        {
            **{"method": method, "domain": row.domain, "seed": seed},
            **{"train_images": row.images, "val_top1": _validated(run, row.domain)},
            **{"test_top1": f"{row.top1:.3f}", "test_images": row.count},
            **{"parameters": row.parameters, "ratio": f"{row.ratio:.4f}"},
            "basis": f"{row.basis:.4f}",
            **{"bytes": run.sizes.get(row.domain, ""), **_took(run, row)},
            "size": run.settings["data.size"],
            "width": run.settings["backbone.width"],
            **facts,
        }
        for row in run.results
    ]


def _validated(run, domain):
    """Return top-1 on validation images, if there were any."""
    results = run.family[domain].results
    return f"{results['val']:.3f}" if "val" in results else ""


def _took(run, row):
    """Return how fast a domain was trained, and for how long, where it was trained in this run."""
    logged = figures.read(run.workdir / "speed" / f"{row.domain}.csv")
    if not logged:
        return {}
    speed = np.median([float(it["images_per_second"]) for it in logged])
    epochs = float(run.settings["train.epochs"])
    minutes = epochs * row.images / speed / 60
    return {"images_per_second": f"{speed:.0f}", "minutes": f"{minutes:.1f}", "epochs": epochs}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "study")
    parser.add_argument("--seeds", default="0,1,2", help="comma-separated")
    parser.add_argument("--epochs", type=float, default=20.0, help="of each domain")
    parser.add_argument("--only", choices=METHODS, action="append", help="may be repeated")
    add_flags(parser, "study.csv")
    arguments = parser.parse_args()
    machine.check(arguments)
    runs = Runs(arguments)
    known = {(it["method"], it["seed"]) for it in figures.read(arguments.out)}
    for seed in arguments.seeds.split(","):
        for method in arguments.only or METHODS:
            if (method, seed) in known:
                continue
            lines = lines_of(runs.of(method, seed), method, seed)
            figures.put(arguments.out, COLUMNS, KEY, lines, arguments.allow_dirty)
            tops = [float(it["test_top1"]) for it in lines if it["domain"] != SOURCE]
            print(f"{method}, seed {seed}: {np.mean(tops):.2f} % in the mean of {len(tops)}")


if __name__ == "__main__":
    main()
