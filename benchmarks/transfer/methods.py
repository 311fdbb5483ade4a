"""Every method on one backbone: what it gives new domains, what it takes, and how fast it trains.

    python benchmarks/transfer/methods.py --data data/decathlon_like

Methods are the recipes of configs/, with this study's length, batch and schedule, and a learning
rate that is chosen from two on validation images of one domain. The backbone is pre-trained on
tiny-imagenet in `--pretrained`, unless that is there. Started again, the command goes on where it
was stopped.
"""

import argparse
import functools
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
sys.path.append(str(Path(__file__).parents[2]))

import machine
from machine import ROOT

from configs import base
from configs.decathlon_like import OPTIONS
from radapt_jax.adapters.registry import make_options
from radapt_jax.experiment.config import train_options
from transfer.command import add_flags, go
from transfer.run import tiny_imagenet
from transfer.study import Method, Study

RECIPES = (
    *("linear", "norm", "series_off_the_shelf", "parallel", "low_rank"),
    *("modulation", "modulation:factored", "controller", "mask", "affine_mask"),
    *("conv_lora", "random_basis", "vera", "conv_adapter", "finetune"),
)
TUNED_ON = "gtsrb"
DOMAINS = (TUNED_ON, "cifar100", "omniglot")
SGD = (0.1, 0.01)
ADAPTERS = {  # rates of adapters alone, where norms and head keep theirs
    "mask": (1e-4, 1e-3),
    "affine_mask": (1e-4, 1e-3),
    "vera": (0.1, 1.0),
    "conv_adapter": (1e-3, 1e-2),
}
OF_TRAINING = ("optimizer", "adapter_optimizer", "learning_rate")


def method_of(recipe):
    """Return the name of a recipe's method, and how it is trained."""
    config = base.recipe(recipe)
    adapter = make_options(config.adapter.kind, **config.adapter.options.to_dict())
    options = train_options(config)
    rates = ADAPTERS.get(recipe)
    return config.method, Method(
        adapter,
        decay=options.decay,
        options={name: getattr(options, name) for name in OF_TRAINING},
        tuned="adapter_rate" if rates else "learning_rate",
        rates=rates or SGD,
    )


def study_of(data, pretrained, seeds, steps):
    """Return the study of the folder of the domains and the workdir of the backbone."""
    return Study(
        backbones={"resnet26, tiny-imagenet": functools.partial(tiny_imagenet, pretrained, data)},
        domains={
            name: {"source": "folder", "dir": str(data), "val_fraction": 0.1, **OPTIONS[name]}
            for name in DOMAINS
        },
        methods=dict(map(method_of, RECIPES)),
        seeds=tuple(range(seeds)),
        steps=steps,
        batch_size=64,
        tuned_on=TUNED_ON,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pretrained", type=Path, default=ROOT / "runs" / "transfer")
    parser.add_argument("--seeds", type=int, default=1, help="how many, from 0")
    parser.add_argument("--steps", type=int, default=200, help="of a training")
    add_flags(parser, "methods.csv")
    arguments = parser.parse_args()
    machine.check(arguments)
    seeds, steps = arguments.seeds, arguments.steps
    go(study_of(arguments.data, arguments.pretrained, seeds, steps), arguments)


if __name__ == "__main__":
    main()
