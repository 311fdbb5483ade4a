"""Parallel adapters of low rank, α = β γᵀ, trained as they are (CVPR 2018, section 3.4).

python train.py --config configs/low_rank.py --config.domains=cifar100,svhn \
    --config.init_from=runs/pretrain --workdir runs/low_rank

The paper trains dense adapters and compresses them (configs/compress.py); here β and γ are trained
from the first step. A rank is a share of the full one, such as 0.5, or a whole number:
--config.adapter.options.ranks=4.
"""

from configs import base


def get_config():
    config = base.get_config()
    config.method = "low_rank"
    config.adapter.kind = "low_rank"
    config.adapter.options.ranks = base.ranks(0.5)  # K = C/2, as the paper's
    return config
