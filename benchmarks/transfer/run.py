"""A CIFAR-10 ResNet-56 against a ResNet-26 of our own, as backbones of small domains at 32 px.

    python benchmarks/transfer/run.py --data data/decathlon_like --weights cifar10_resnet56.th

`--data` is the folder of the domains (configs/decathlon_like.py), `--weights` the file of the
ResNet-56 (docs/networks.md). The other backbone is pre-trained on tiny-imagenet in `--pretrained`,
unless that is there. Started again, the command goes on where it was stopped.
"""

import argparse
import dataclasses
import functools
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))  # configs
sys.path.append(str(ROOT / "benchmarks"))

import machine

import radapt_jax as rj
from configs.decathlon_like import OPTIONS
from radapt_jax.convert.state_dict import state_dict_of
from transfer.measure import measure
from transfer.study import METHODS, Study

RATES = {
    "linear": (0.1,),
    "norm": (0.1,),
    "series": (0.1, 0.01),
    "parallel": (0.1, 0.01),
    "finetune": (0.1, 0.01),
}
DOMAINS = {  # textures, scenes from above, signs
    "dtd10": {"val_fraction": 0.2},
    "rsscn7": {"val_fraction": 0.2},
    "gtsrb": {"images_per_class": 20},
}


def study_of(data, weights, pretrained):
    """Return the study of the folder of the domains, the ResNet-56's file and our workdir."""
    return Study(
        backbones={
            "resnet26, tiny-imagenet": functools.partial(tiny_imagenet, pretrained, data),
            "resnet56, CIFAR-10": lambda: rj.family_of_resnet_cifar(state_dict_of(weights)),
        },
        domains={
            name: {"source": "folder", "dir": str(data), **OPTIONS[name], **own}
            for name, own in DOMAINS.items()
        },
        methods={name: dataclasses.replace(METHODS[name], rates=it) for name, it in RATES.items()},
    )


def tiny_imagenet(workdir, data):
    """Return the family of a workdir, which is pre-trained first if it is not."""
    if not (workdir / "shared").is_dir():
        command = [sys.executable, str(ROOT / "train.py")]
        command += ["--config", str(ROOT / "configs" / "decathlon_like.py:scratch")]
        command += [f"--config.data.dir={data}", "--workdir", str(workdir)]
        subprocess.run(command, check=True)
    return rj.Family.load(workdir)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "decathlon_like")
    parser.add_argument("--weights", type=Path, required=True, help="file of the ResNet-56")
    parser.add_argument("--pretrained", type=Path, default=ROOT / "runs" / "transfer")
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/radapt_jax").expanduser())
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "transfer.csv")
    machine.add_flags(parser)
    arguments = parser.parse_args()
    machine.check(arguments)
    study = study_of(arguments.data, arguments.weights, arguments.pretrained)
    measure(study, arguments.out, arguments.cache, machine.facts(), arguments.allow_dirty)


if __name__ == "__main__":
    main()
