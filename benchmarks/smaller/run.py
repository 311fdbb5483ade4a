"""Small domains of nine real sets of images: what is lost, without training and after it.

    python benchmarks/smaller/run.py --data data/decathlon_like

A backbone is pre-trained on tiny-imagenet in `--runs`/pretrain, unless that is there, and parallel
adapters are trained on nine domains for each seed. Then every way to make them smaller
(smaller/small.py) is measured without training, and those of smaller/trained.py are
fine-tuned. Started again, the command goes on where it was stopped.
"""

import argparse
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
sys.path.append(str(Path(__file__).parents[2]))

import machine
from machine import ROOT
from transfer.command import add_flags, keep_programs

import radapt_jax as rj
from smaller import trained, untrained
from smaller.runs import Runs


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "compression")
    parser.add_argument("--seeds", default="0,1,2", help="comma-separated")
    parts = ("untrained", "trained")
    parser.add_argument("--part", choices=parts, help="only this (default: both)")
    add_flags(parser, "compression.csv")
    arguments = parser.parse_args()
    machine.check(arguments)
    keep_programs(arguments.cache)
    facts, runs = machine.facts(), Runs(arguments.runs, arguments.data, arguments.cache)
    for seed in map(int, arguments.seeds.split(",")):
        where = (seed, arguments.out, facts, arguments.allow_dirty)
        if arguments.part != "trained":
            dense = rj.Family.load(runs.dense(seed))
            images = untrained.images_of(dense, arguments.cache, arguments.data)
            untrained.measure(dense, images, *where)
        if arguments.part != "untrained":
            trained.measure(runs, *where)


if __name__ == "__main__":
    main()
