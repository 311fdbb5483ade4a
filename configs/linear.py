"""Train the head alone on frozen features (the papers' "feature extractor").

python train.py --config configs/linear.py --config.domains=cifar100 \
    --config.init_from=runs/pretrain --workdir runs/linear

Batch statistics still follow the domain, as in the original.
"""

from configs import base


def get_config():
    config = base.get_config()
    config.method = "linear"
    config.optim.decay.adapters = None
    config.optim.decay.norms = None
    return config
