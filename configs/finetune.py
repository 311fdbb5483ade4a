"""Finetune everything on each domain; every domain keeps a network of its own.

python train.py --config configs/finetune.py --config.domains=cifar100 \
    --config.init_from=runs/pretrain --workdir runs/finetune
"""

from configs import base


def get_config():
    config = base.get_config()
    config.method = "finetune"
    config.optim.learning_rate = 0.01
    config.optim.decay.filters = 5e-4
    return config
