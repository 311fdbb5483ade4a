"""Train norms and head, filters frozen (Bilen and Vedaldi, 2017).

python train.py --config configs/norm.py --config.domains=cifar100 \
    --config.init_from=runs/pretrain --workdir runs/norm
"""

from configs import base


def get_config():
    config = base.get_config()
    config.method = "norm"
    config.optim.decay.adapters = None
    return config
