"""Parallel residual adapters, shared filters frozen (CVPR 2018, section 3.1.2).

python train.py --config configs/parallel.py --config.domains=cifar100,svhn \
    --config.init_from=runs/pretrain --workdir runs/parallel

Any backbone will do, one that was pre-trained without adapters too.
"""

from configs import base


def get_config():
    config = base.get_config()
    config.method = "parallel"
    config.adapter.kind = "parallel"
    return config
