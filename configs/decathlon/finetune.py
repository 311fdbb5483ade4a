"""Finetune everything: every domain keeps a network of its own (table 1: finetuning).

python train.py --config configs/decathlon/finetune.py --workdir runs/decathlon/finetune
"""

from configs import decathlon


def get_config():
    return decathlon.of("finetune", "finetune")
