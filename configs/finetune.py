"""Finetune everything on each domain; every domain keeps a network of its own.

python train.py --config configs/finetune.py --config.domains=cifar100 \
    --config.init_from=runs/pretrain --workdir runs/finetune

The rate is the original code's, 0.1. Try 0.01 too where a large network was trained on much.
"""

from configs import base


def get_config():
    config = base.get_config()
    config.method = "finetune"
    config.optim.decay.filters = 5e-4
    return config
