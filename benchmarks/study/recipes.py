"""What other ways to train parallel adapters are worth, on validation images: recipes.csv.

    python benchmarks/study/recipes.py --data data/decathlon_like

Each change of the paper's recipe trains all nine domains on the study's backbone, for half as long
as the study does and with three tenths of the training images held out, so that means over
domains can be told apart. Rows are validation top-1; test images are not looked at. Started again,
it goes on where it was stopped.
"""

import argparse
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
sys.path.append(str(Path(__file__).parents[2]))

import figures
import machine
from machine import ROOT
from trained_runs import DOMAINS, facts_of, finish, folder_name
from transfer.command import add_flags

from configs.decathlon_like import OPTIONS
from radapt_jax.report.page.runs import read_runs
from study.parts import CROPS

KEY = ("change", "domain", "seed")
COLUMNS = (*KEY, "val_top1", "epochs", "size", "width", "device", "jax", "commit")
FASTER = {"optim.adapter_rate": 0.3}
AVERAGED = {"optim.average": 0.2}
TAUGHT = "taught by finetuned networks"  # of the same domains, trained as long
SMOOTHING, MIXUP = {"train.label_smoothing": 0.1}, {"train.mixup": 0.2}


def _decayed(factor):
    """Return all decays of a domain's own variables, times a factor."""
    return {
        **{f"optim.decay.{it}": 5e-4 * factor for it in ("norms", "head")},
        **{f"options.{it}.adapter_decay": OPTIONS[it]["adapter_decay"] * factor for it in DOMAINS},
    }


CHANGES = {
    "none": {},
    "random crops everywhere": CROPS,
    "label smoothing 0.1": SMOOTHING,
    "mixup 0.2": MIXUP,
    "crops, smoothing and mixup": {**CROPS, **SMOOTHING, **MIXUP},
    **{f"distortion {it}": {"train.distortion": it} for it in (0.3, 0.6)},
    "averaged weights": AVERAGED,
    "rate 0.05": {"optim.learning_rate": 0.05},
    "rate 0.2": {"optim.learning_rate": 0.2},
    "warm-up of 5 %": {"optim.warmup": 0.05},
    "adapters at a third of the rate": {"optim.adapter_rate": 0.033},
    "adapters at three times the rate": FASTER,
    "adapters by Adam": {"optim.adapter_optimizer": "adam", "optim.adapter_rate": 0.003},
    "a quarter of the decay": _decayed(1 / 4),
    "four times the decay": _decayed(4),
    TAUGHT: {},
    "crops, adapters at three times the rate": {**CROPS, **FASTER},
    "crops, three times the rate, averaged weights": {**CROPS, **FASTER, **AVERAGED},
    "crops, three times the rate, distortion 0.3": {**CROPS, **FASTER, "train.distortion": 0.3},
    "crops, adapters at ten times the rate": {**CROPS, "optim.adapter_rate": 1.0},
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "study", help="the study's")
    parser.add_argument("--seeds", default="0", help="comma-separated")
    parser.add_argument("--only", choices=CHANGES, action="append", help="may be repeated")
    add_flags(parser, "recipes.csv")
    arguments = parser.parse_args()
    machine.check(arguments)
    shared = {"data.dir": arguments.data, "data.cache": arguments.cache}
    shared |= {"init_from": arguments.runs / "backbone", "domains": ",".join(DOMAINS)}
    shared |= {"train.epochs": 10.0, "train.evals": 1, "train.batch_size": 64}
    shared |= {"data.val_fraction": 0.3, "method": "trial"}
    for seed in arguments.seeds.split(","):
        for change in arguments.only or CHANGES:
            workdir = arguments.runs / "recipes" / folder_name(change) / f"seed{seed}"
            entries = {**shared, "seed": seed, **CHANGES[change]}
            if change == TAUGHT:
                entries["teachers"] = arguments.runs / "recipes" / "finetuned" / f"seed{seed}"
                finish("finetune", entries["teachers"], {**shared, "seed": seed})
            finish("parallel", workdir, entries)
            lines = lines_of(workdir, change, seed)
            figures.put(arguments.out, COLUMNS, KEY, lines, arguments.allow_dirty)


def lines_of(workdir, change, seed):
    """Return a line for each domain of a finished run."""
    (run,) = read_runs([workdir])
    return [
        {
            **{"change": change, "domain": domain, "seed": seed},
            "val_top1": f"{run.family[domain].results['val']:.3f}",
            "epochs": run.settings["train.epochs"],
            **{"size": run.settings["data.size"], "width": run.settings["backbone.width"]},
            **facts_of(workdir),
        }
        for domain in DOMAINS
    ]


if __name__ == "__main__":
    main()
