"""Parallel residual adapters, shared filters frozen (CVPR 2018, section 3.1.2).

python train.py --config configs/parallel.py --config.domains=cifar100,svhn \
    --config.init_from=runs/pretrain --workdir runs/parallel

Any backbone will do, one that was pre-trained without adapters too.

configs/parallel.py:ours trains adapters at three times the rate of norms and head; docs/study.md
says what that brings on nine small domains.
"""

from configs import base

FASTER = {"paper": 1, "ours": 3}  # than the rest; it follows config.optim.learning_rate


def get_config(recipe="paper"):
    config = base.get_config()
    config.method = "parallel"
    config.adapter.kind = "parallel"
    times = base.variant(recipe, FASTER)
    if times != 1:
        config.optim.adapter_rate = times * config.optim.get_ref("learning_rate")
    return config
