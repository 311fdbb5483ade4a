"""Low-rank adapters on a random β that no domain stores: the baseline of a β that is learned.

python train.py --config configs/random_basis.py --config.domains=cifar100,svhn \
    --config.init_from=runs/pretrain --workdir runs/random_basis

α = β γᵀ with γ trained, and β drawn from a seed. Rank, rates, decay, batch and schedule are those
of configs/low_rank.py, so that what differs is β. configs/vera.py is the form of VeRA.
"""

from configs import base


def get_config():
    config = base.get_config()
    config.method = "random_basis"
    config.adapter.kind = "random_basis"
    config.adapter.options.ranks = base.ranks(0.5)
    return config
